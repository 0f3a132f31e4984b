#!/usr/bin/env python
"""The tool ``ptq-det train_net`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.train_net import main

if __name__ == "__main__":
    main()
