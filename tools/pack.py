#!/usr/bin/env python
"""The tool ``ptq-det pack`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.pack import main

if __name__ == "__main__":
    main()
