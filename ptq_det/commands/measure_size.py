"""Shows where the bytes of a model are, before and after packing, or what is in a packed file.

ptq-det measure_size model.safetensors
ptq-det measure_size --config-file configs/mask_rcnn_R50_ptq.yaml MODEL.WEIGHTS W
ptq-det measure_size --torchvision resnet18 [W] TERNARY.SPARSITY 0.89

W is a ternary checkpoint, a packed file, or a float checkpoint, which is ternarized in one shot.
"""

import argparse
import sys
import warnings

from detectron2.utils.logger import setup_logger

from ..files import replacing
from ..packing.report import draw_sizes
from .classification import NETWORKS
from .inputs import IMPORT
from .inspection import describe_file
from .mistakes import told_in_one_line
from .pack import ONE_SHOT, pack

__all__ = ["main"]


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--config-file", help="config of a detector")
    model.add_argument("--torchvision", choices=sorted(NETWORKS), help="a classification network")
    parser.add_argument("--import", **IMPORT)
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--plot", help="file for a picture of where the bytes are, .png")
    parser.add_argument(
        "words", nargs="*", metavar="[FILE] [KEY VALUE ...]",
        help="packed file to look into, or weights; overrides of the config",
    )  # fmt: skip
    args = parser.parse_intermixed_args()
    args.look_into = not (args.config_file or args.torchvision)
    if args.look_into and len(args.words) != 1:
        parser.error("give a packed file alone, --config-file or --torchvision")
    return args


def main() -> None:
    """Run by the arguments of the command line."""
    args = parse()
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in ("fvcore", "ptq_det"):
        setup_logger(name=name)
    with told_in_one_line():
        if args.look_into:
            print(describe_file(args.words[0]))
            if not (args.json or args.plot):
                return
        report = pack(args.words, config_file=args.config_file, network=args.torchvision)
        if args.json:
            with replacing(args.json) as scratch:
                scratch.write_text(report.to_json() + "\n")
        if args.plot:
            draw_sizes(report, args.plot)
    if not args.look_into:
        print(report.table())
    if report.one_shot:
        print(f"\n{ONE_SHOT}")
    print(f"\n{report.summary()}")
    sys.exit(0 if report.verified else 1)


if __name__ == "__main__":
    main()
