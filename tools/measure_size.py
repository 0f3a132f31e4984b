#!/usr/bin/env python
"""The tool ``ptq-det measure_size`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.measure_size import main

if __name__ == "__main__":
    main()
