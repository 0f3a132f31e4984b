#!/usr/bin/env python
"""Draws the predictions of a packed model.

python tools/demo.py --weights model.safetensors --input a.jpg b.jpg --output drawn
"""

import argparse
import sys
import warnings

from detectron2.utils.logger import setup_logger

from ptq_det.commands.draw import draw_predictions, predictor_of
from ptq_det.errors import InputError
from ptq_det.inference import ENGINES


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="packed model")
    parser.add_argument("--input", required=True, nargs="+", help="pictures")
    parser.add_argument("--output", required=True, help="folder for the drawings")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score that is drawn")
    parser.add_argument("--min-size", type=int, help="shorter side in pixels")
    parser.add_argument("--engine", choices=ENGINES, default="float", help="what computes")
    args = parser.parse_args()
    setup_logger(name="ptq_det")
    warnings.filterwarnings("ignore", category=UserWarning)
    try:
        predictor, metadata = predictor_of(args.weights, args.min_size, args.engine)
        for path, count in draw_predictions(
            predictor, metadata, args.input, args.output, args.threshold
        ):
            print(f"{path}: {count} objects")
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
