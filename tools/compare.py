#!/usr/bin/env python
"""Fine-tunes one config in several ways and compares AP and size of the packed files.

python tools/compare.py --config-file C --runs runs.yaml --output output/compare MODEL.WEIGHTS W

runs.yaml maps names to overrides; differences are to the first run:
    control: [TERNARY.ENABLED, False]
    PTQ 80 %: [TERNARY.SPARSITY, 0.8]
A comparison that was stopped goes on where it was when the command is given again.
"""

import argparse
import warnings
from pathlib import Path

from detectron2.utils.logger import setup_logger

from ptq_det.commands.compare import compare, draw_comparison, read_runs, table_of
from ptq_det.commands.mistakes import told_in_one_line


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--runs", required=True, help="YAML file: name of a run -> overrides")
    parser.add_argument("--output", required=True, help="folder for runs, table and picture")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of all runs")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    with told_in_one_line():
        runs = read_runs(args.runs)
        for name in ("fvcore", "detectron2", "ptq_det"):
            setup_logger(args.output, name=name)
        results = compare(args.config_file, runs, args.opts, args.output)
        table = table_of(results)
        (Path(args.output) / "table.md").write_text(table + "\n")
        draw_comparison(results, str(Path(args.output) / "comparison.png"))
    print(f"\n{table}")


if __name__ == "__main__":
    main()
