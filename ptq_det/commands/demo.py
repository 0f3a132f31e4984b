"""Draws what a packed model finds; or runs the whole path from float weights to the packed file.

ptq-det demo                                  what the packaged detector finds
ptq-det demo --weights model.safetensors --input a.jpg b.jpg --output drawn
ptq-det demo --fine-tune                      the whole path; `make demo` calls this
"""

import argparse
import sys
import warnings

from detectron2.utils.logger import setup_logger

from ..engines import ENGINE_REGISTRY
from .draw import built_in_pictures, draw_predictions, predictor_of
from .inputs import IMPORT
from .mistakes import positive, told_in_one_line
from .whole_path import run_demo

__all__ = ["main"]

CONFIG = "ptq_det://configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"
PACKAGED = "ptq_det://shapes_mask_rcnn_ptq.safetensors"


def score(text):
    """A score from 0 to 1, as argparse's ``type``."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no score from 0 to 1")
    return number


def main() -> None:
    """Run by the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="output/demo", help="folder for what is written")
    draw = parser.add_argument_group("drawing")
    draw.add_argument("--weights", default=PACKAGED, help="packed model, or the packaged one")
    draw.add_argument("--input", nargs="+", help="pictures; without, some generated ones")
    draw.add_argument("--threshold", type=score, default=0.5, help="least score that is drawn")
    draw.add_argument("--min-size", type=positive, help="shorter side in pixels")
    engines = [name for name, _ in ENGINE_REGISTRY]
    draw.add_argument("--engine", choices=engines, help="what computes; float unless named")
    parser.add_argument("--import", **IMPORT)
    path = parser.add_argument_group("the whole path")
    path.add_argument("--fine-tune", action="store_true", help="fine-tune, pack and evaluate")
    path.add_argument("--config-file", default=CONFIG)
    path.add_argument("opts", nargs="*", help="overrides of the config", metavar="KEY VALUE")
    args = parser.parse_intermixed_args()
    if args.fine_tune and (args.engine or args.input):
        parser.error("--fine-tune runs the whole path in float on generated pictures")
    if args.opts and not args.fine_tune:
        parser.error(f"{args.opts[0]!r}: pictures are given by --input, overrides by --fine-tune")
    warnings.filterwarnings("ignore", category=UserWarning)
    with told_in_one_line():
        if args.fine_tune:
            run_demo(args.config_file, args.output, args.opts)
            return
        setup_logger(name="ptq_det")
        predictor, metadata = predictor_of(args.weights, args.min_size, args.engine)
        inputs = args.input or built_in_pictures(args.output)
        failed = 0
        for drawing in draw_predictions(predictor, metadata, inputs, args.output, args.threshold):
            if drawing.path is None:
                failed += 1
                print(f"error: {drawing.source}: {drawing.trouble}", file=sys.stderr)
                continue
            least = f"of a score of at least {args.threshold}"
            print(f"{drawing.path}: {drawing.objects} objects {least}")
    sys.exit(2 if failed else 0)


if __name__ == "__main__":
    main()
