#!/usr/bin/env python
"""The tool ``ptq-det unpack`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.unpack import main

if __name__ == "__main__":
    main()
