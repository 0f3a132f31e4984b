#!/usr/bin/env python
"""The tool ``ptq-det lazyconfig_train_net`` where there is a clone; ``--help`` tells more."""

from ptq_det.commands.lazyconfig_train_net import main

if __name__ == "__main__":
    main()
