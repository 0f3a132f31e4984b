#!/usr/bin/env python
"""The tool ``ptq-det make_demo_weights`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.make_demo_weights import main

if __name__ == "__main__":
    main()
