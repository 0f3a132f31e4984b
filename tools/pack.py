#!/usr/bin/env python
"""Packs a model into one file, and calibrates it for engines on integers.

python tools/pack.py --config-file C --output model.safetensors W
python tools/pack.py --config-file C --calibrate DATASET --output model.safetensors MODEL.WEIGHTS W
python tools/pack.py model.safetensors --calibrate DATASET --output calibrated.safetensors
python tools/pack.py --torchvision resnet18 --output model.safetensors W TERNARY.SPARSITY 0.89

W is a ternary checkpoint, a packed file, or a float checkpoint, which is ternarized in one shot.
"""

import argparse
import sys
import warnings

from detectron2.utils.logger import setup_logger

from ptq_det.commands.classification import NETWORKS
from ptq_det.commands.mistakes import told_in_one_line
from ptq_det.commands.pack import pack


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--config-file", help="config of the detector; a packed file has its own")
    model.add_argument("--torchvision", choices=sorted(NETWORKS), help="a classification network")
    parser.add_argument(
        "--calibrate",
        metavar="DATASET",
        help="find the ranges that the engines int8 and sparse need",
    )
    parser.add_argument("--output", required=True, help="packed file to write")
    parser.add_argument(
        "words", nargs="*", metavar="[FILE] [KEY VALUE ...]",
        help="what to pack, in place of MODEL.WEIGHTS; overrides of the config",
    )  # fmt: skip
    args = parser.parse_intermixed_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in ("fvcore", "ptq_det"):
        setup_logger(name=name)
    with told_in_one_line():
        report = pack(args.words, args.output, args.calibrate, args.config_file, args.torchvision)
    if report.one_shot:
        print("Latent weights were ternarized in one shot: the sizes count, an AP would not.")
    print(f"{args.output}: {report.file_bytes} bytes\n{report.summary()}")
    sys.exit(0 if report.verified else 1)


if __name__ == "__main__":
    main()
