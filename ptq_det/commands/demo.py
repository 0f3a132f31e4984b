"""Draws what a packed model finds; or runs the whole path from float weights to the packed file.

ptq-det demo                                  what the packaged detector finds
ptq-det demo --weights model.safetensors --input a.jpg b.jpg --output drawn
ptq-det demo --weights model.safetensors --video-input a.mp4 --output drawn
ptq-det demo --fine-tune                      the whole path; `make demo` calls this
"""

import argparse
import sys
import warnings
from pathlib import Path

from detectron2.utils.logger import setup_logger

from .draw import built_in_pictures, draw_predictions, predictor_of
from .inputs import IMPORT
from .mistakes import positive, told_in_one_line
from .video import (
    check_windows,
    drawn_frames,
    frame_count,
    frame_rate,
    open_camera,
    open_video,
    record,
    show,
    video_target,
)
from .whole_path import run_demo

__all__ = ["main"]

CONFIG = "ptq_det://configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"
FOLDER = "output/demo"
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
    parser.add_argument(
        "--output",
        help=f"folder for what is written, default {FOLDER}; of a video a file too, and without "
        "it the video is shown in a window",
    )
    parser.add_argument("--import", **IMPORT)
    draw = parser.add_argument_group("drawing")
    draw.add_argument("--weights", default=PACKAGED, help="packed model, or the packaged one")
    source = draw.add_mutually_exclusive_group()
    source.add_argument("--input", nargs="+", help="pictures; without, some generated ones")
    source.add_argument("--video-input", metavar="FILE", help="a video")
    source.add_argument("--webcam", action="store_true", help="the first camera of this machine")
    draw.add_argument("--threshold", type=score, default=0.5, help="least score that is drawn")
    draw.add_argument("--min-size", type=positive, help="shorter side in pixels")
    draw.add_argument("--engine", help="what computes: float (unless named), int8, sparse")
    path = parser.add_argument_group("the whole path")
    path.add_argument("--fine-tune", action="store_true", help="fine-tune, pack and evaluate")
    path.add_argument("--config-file", default=CONFIG)
    path.add_argument("opts", nargs="*", help="overrides of the config", metavar="KEY VALUE")
    args = parser.parse_intermixed_args()
    is_video = bool(args.video_input or args.webcam)
    if args.fine_tune and (args.engine or args.input or is_video):
        parser.error("--fine-tune runs the whole path in float on generated pictures")
    if args.opts and not args.fine_tune:
        parser.error(f"{args.opts[0]!r}: pictures are given by --input, overrides by --fine-tune")
    warnings.filterwarnings("ignore", category=UserWarning)
    with told_in_one_line():
        if args.fine_tune:
            run_demo(args.config_file, args.output or FOLDER, args.opts)
            return
        setup_logger(name="ptq_det")
        failed = _draw_video(args) if is_video else _draw_pictures(args)
    sys.exit(2 if failed else 0)


def _draw_pictures(args: argparse.Namespace) -> int:
    """Draw into pictures; how many could not be read."""
    output = args.output or FOLDER
    predictor, metadata = predictor_of(args.weights, args.min_size, args.engine)
    inputs = args.input or built_in_pictures(output)
    failed = 0
    for drawing in draw_predictions(predictor, metadata, inputs, output, args.threshold):
        if drawing.path is None:
            failed += 1
            print(f"error: {drawing.source}: {drawing.trouble}", file=sys.stderr)
            continue
        of_a_score = drawing.found.kind in ("objects", "proposals")
        least = f" of a score of at least {args.threshold}" if of_a_score else ""
        print(f"{drawing.path}: {drawing.found}{least}")
    return failed


def _draw_video(args: argparse.Namespace) -> int:
    """Draw into the frames of a video or of a camera, a file or a window; 0, as nothing failed."""
    video = open_camera() if args.webcam else open_video(args.video_input)
    name = "webcam" if args.webcam else Path(args.video_input).stem
    target = video_target(args.output, name) if args.output else check_windows()
    predictor, metadata = predictor_of(args.weights, args.min_size, args.engine)
    frames = drawn_frames(predictor, metadata, video, args.threshold)
    count = record(frames, target, frame_rate(video)) if target else show(frames, name)
    said = frame_count(video)
    missing = f" of the {said} that the file says it has" if count < said else ""
    print(f"{target or name}: {count} frames{missing}")
    return 0


if __name__ == "__main__":
    main()
