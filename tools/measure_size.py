#!/usr/bin/env python
"""Shows where the bytes of a model are, before and after packing, or what is in a packed file.

python tools/measure_size.py model.safetensors
python tools/measure_size.py --config-file configs/mask_rcnn_R50_ptq.yaml MODEL.WEIGHTS W
python tools/measure_size.py --torchvision resnet18 [--weights FILE] TERNARY.SPARSITY 0.89

W is a ternary checkpoint, a packed file, or a float checkpoint, which is ternarized in one shot.
"""

import argparse
import logging
import sys
import warnings

from detectron2.utils.logger import setup_logger

from ptq_det.commands.classification import NETWORKS, build_classifier, classifier_config
from ptq_det.commands.pack import split_words
from ptq_det.errors import InputError
from ptq_det.files import replacing
from ptq_det.inference import calibrate_packed
from ptq_det.packing.inspection import describe_file
from ptq_det.packing.report import draw_sizes, measure_size
from ptq_det.packing.source import packed_from_checkpoint, packed_from_model
from ptq_det.training.preflight import check_datasets, check_weights, read_config


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--config-file", help="config of a detector")
    model.add_argument("--torchvision", choices=sorted(NETWORKS), help="a classification network")
    parser.add_argument("--weights", default="", help="weights of the --torchvision network")
    parser.add_argument(
        "--calibrate", metavar="DATASET", help="as tools/pack.py has it; goes with the next release"
    )
    parser.add_argument("--output", help="as tools/pack.py has it; goes with the next release")
    parser.add_argument("--json", help="file for all figures")
    parser.add_argument("--plot", help="file for a picture of where the bytes are, .png")
    parser.add_argument(
        "words", nargs="*", metavar="[FILE] [KEY VALUE ...]",
        help="packed file to look into; or overrides of the config",
    )  # fmt: skip
    args = parser.parse_intermixed_args()
    args.file, args.opts = split_words(args.words)
    if args.torchvision and args.file:
        parser.error(f"{args.file!r} is neither a key nor a value; weights are given by --weights")
    if args.config_file and args.file:
        args.opts += ["MODEL.WEIGHTS", args.file]
        args.file = None
    if args.weights and not args.torchvision:
        parser.error("--weights goes with --torchvision; those of a detector are MODEL.WEIGHTS")
    if args.file and (args.json or args.plot or args.output or args.calibrate):
        parser.error(f"{args.file} alone is looked into; give --config-file too for anything else")
    if not (args.config_file or args.torchvision or args.file):
        parser.error("give a packed file, --config-file or --torchvision")
    return args


def packed_model(args):
    """The model to measure, and whether it was ternarized just for that."""
    if args.torchvision:
        cfg = classifier_config(args.torchvision, args.opts)
        model, architecture = build_classifier(args.torchvision, args.weights)
        return packed_from_model(model, cfg, architecture)
    cfg = read_config(args.config_file, args.opts)
    check_weights(cfg.MODEL.WEIGHTS)
    return packed_from_checkpoint(cfg)


def main():
    args = parse()
    warnings.filterwarnings("ignore", category=UserWarning)
    for name in ("fvcore", "ptq_det"):
        setup_logger(name=name)
    try:
        if args.file:
            print(describe_file(args.file))
            return
        if args.output or args.calibrate:
            logging.getLogger("ptq_det").warning("tools/pack.py packs and calibrates from now on")
        packed, one_shot = packed_model(args)
        if args.calibrate:
            check_datasets([args.calibrate])
            calibrate_packed(packed, args.calibrate)
        report = measure_size(packed, args.output, one_shot)
        if args.json:
            with replacing(args.json) as scratch:
                scratch.write_text(report.to_json() + "\n")
        if args.plot:
            draw_sizes(report, args.plot)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    print(report.table())
    if one_shot:
        print("\nTernarized in one shot, without fine-tuning: the sizes count, an AP would not.")
    print(f"\n{report.summary()}")
    sys.exit(0 if report.verified else 1)


if __name__ == "__main__":
    main()
