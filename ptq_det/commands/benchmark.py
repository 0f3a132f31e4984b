"""Benchmarks; every part prints a table and ends its output with one line of JSON.

ptq-det benchmark train     time of a training step, ternary over float
ptq-det benchmark size      bytes of the codec beside other compressors; time of loading
ptq-det benchmark inference time and memory of each engine beside stock Detectron2
ptq-det benchmark sensitivity  error and bytes of each layer by its zeros
ptq-det benchmark kernels   speed of convolutions by their zeros beside PyTorch's
ptq-det benchmark difference how sure a difference in AP of evaluated models is
ptq-det benchmark fuzz      what becomes of forged packed files
"""

import argparse
import json
import warnings

from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from .benchmarks import (
    benchmark_difference,
    benchmark_fuzz,
    benchmark_inference,
    benchmark_kernels,
    benchmark_sensitivity,
    benchmark_size,
    benchmark_train,
)
from .inputs import IMPORT
from .mistakes import positive, told_in_one_line

__all__ = ["main"]

CONFIG = "ptq_det://configs/mask_rcnn_R50_ptq.yaml"


def main() -> None:
    """Run by the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    train = parts.add_parser("train", help="time of a training step, ternary over float")
    train.add_argument("--config-file", default=CONFIG)
    train.add_argument("--import", **IMPORT)
    train.add_argument("--size", type=positive, nargs=2, default=(800, 1333), metavar=("H", "W"))
    train.add_argument("--batch", type=positive, default=2, help="pictures a step")
    train.add_argument("--rounds", type=positive, default=5, help="steps of each kind")
    train.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config")
    size = parts.add_parser("size", help="bytes of the codec beside others; time of loading")
    size.add_argument("--config-file", default=CONFIG)
    size.add_argument("--import", **IMPORT)
    size.add_argument("--rounds", type=positive, default=5, help="how often loading is timed")
    size.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config")
    zeros = parts.add_parser("sensitivity", help="error and bytes of each layer by its zeros")
    zeros.add_argument("--config-file", default=CONFIG)
    zeros.add_argument("--import", **IMPORT)
    zeros.add_argument("--plot", help="file for a picture of the curves, .png")
    zeros.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config")
    run = parts.add_parser("inference", help="time and memory of each engine beside stock")
    run.add_argument("--weights", required=True, help="packed detector")
    run.add_argument("--dataset", required=True, help="where the pictures are from")
    run.add_argument("--pictures", type=positive, default=3)
    run.add_argument("--rounds", type=positive, default=5, help="how often each is predicted")
    run.add_argument(
        "--size", type=positive, nargs=2, action="append", metavar=("H", "W"),
        help="scale the pictures to it; may be given again (800 1333 and 480 640)",
    )  # fmt: skip
    run.add_argument(
        "--runtimes", action="store_true",
        help="the exported file on ONNX Runtime, and on OpenVINO where it is installed, too",
    )  # fmt: skip
    run.add_argument("--ap", action="store_true", help="evaluate every engine on the data set too")
    run.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the model's config")
    pair = parts.add_parser("difference", help="how sure a difference in AP is")
    pair.add_argument("--dataset", required=True, help="what was evaluated")
    pair.add_argument(
        "--predictions", nargs="+", required=True,
        help="OUTPUT_DIR/inference/coco_instances_results.json of a model, or of one a seed",
    )  # fmt: skip
    pair.add_argument("--baseline", nargs="+", required=True, help="as many, of the other model")
    pair.add_argument("--samples", type=positive, default=2000, help="how often pictures are drawn")
    fuzz = parts.add_parser("fuzz", help="forged packed files, none of which may do harm")
    fuzz.add_argument("--weights", help="honest packed file of a config to forge from, alone")
    fuzz.add_argument("--files", type=positive, default=1000, help="how many to forge")
    fuzz.add_argument("--workers", type=positive, default=1, help="processes, used again")
    fuzz.add_argument("--seed", type=int, default=0, help="of the forgeries")
    layers = parts.add_parser("kernels", help="speed of convolutions by their zeros")
    layers.add_argument("--rounds", type=positive, default=10, help="how often each is run")
    layers.add_argument("--threads", type=positive, default=1)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    with told_in_one_line():
        result = measure(args)
    print(json.dumps(result))


def measure(args):
    if args.part == "train":
        shape = tuple(args.size)
        return benchmark_train(args.config_file, args.opts, shape, args.batch, args.rounds)
    elif args.part == "inference":
        setup_logger(name="ptq_det")
        sizes = [tuple(size) for size in args.size or [(800, 1333), (480, 640)]]
        return benchmark_inference(
            args.weights, args.dataset, sizes, args.pictures, args.rounds, args.ap, args.opts,
            args.runtimes,
        )  # fmt: skip
    elif args.part == "sensitivity":
        return benchmark_sensitivity(args.config_file, args.opts, args.plot)
    elif args.part == "fuzz":
        return benchmark_fuzz(
            args.weights and PathManager.get_local_path(args.weights),
            args.files,
            args.workers,
            args.seed,
        )
    elif args.part == "kernels":
        return benchmark_kernels(args.rounds, args.threads)
    elif args.part == "difference":
        return benchmark_difference(args.dataset, args.predictions, args.baseline, args.samples)
    else:
        return benchmark_size(args.config_file, args.opts, args.rounds)


if __name__ == "__main__":
    main()
