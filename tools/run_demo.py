#!/usr/bin/env python
"""Runs the whole path on the built-in data set; `make demo` calls this."""

import argparse
from pathlib import Path

from ptq_det.commands.demo import run_demo

CONFIG = Path(__file__).parents[1] / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=str(CONFIG))
    parser.add_argument("--output", default="output/demo")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config")
    args = parser.parse_args()
    run_demo(args.config_file, args.output, args.opts)
