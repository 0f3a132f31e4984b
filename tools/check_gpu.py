#!/usr/bin/env python
"""The tool ``ptq-det check_gpu`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.check_gpu import main

if __name__ == "__main__":
    main()
