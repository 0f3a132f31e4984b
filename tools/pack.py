#!/usr/bin/env python
"""Packs a model into one file, and calibrates it for the engine int8.

python tools/pack.py --config-file C --output model.safetensors MODEL.WEIGHTS W
python tools/pack.py --config-file C --calibrate DATASET --output model.safetensors MODEL.WEIGHTS W
python tools/pack.py model.safetensors --calibrate DATASET --output calibrated.safetensors

W is a ternary checkpoint, a packed file, or a float checkpoint, which is ternarized in one shot.
"""

import argparse
import sys
import warnings

from detectron2.utils.logger import setup_logger

from ptq_det.commands.pack import pack
from ptq_det.errors import InputError


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", help="config of the detector; a packed file has its own")
    parser.add_argument(
        "--calibrate", metavar="DATASET", help="find the ranges that the engine int8 needs"
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
    try:
        report = pack(args.config_file, args.words, args.output, args.calibrate)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    if report.one_shot:
        print("Ternarized in one shot, without fine-tuning: the sizes count, an AP would not.")
    print(f"{args.output}: {report.file_bytes} bytes\n{report.summary()}")
    sys.exit(0 if report.verified else 1)


if __name__ == "__main__":
    main()
