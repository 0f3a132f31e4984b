"""Packs a model into one file, and calibrates it for engines on integers.

ptq-det pack --config-file C --output model.safetensors W
ptq-det pack --config-file C --calibrate DATASET --output model.safetensors MODEL.WEIGHTS W
ptq-det pack model.safetensors --calibrate DATASET --output calibrated.safetensors
ptq-det pack --torchvision resnet18 --output model.safetensors W TERNARY.SPARSITY 0.89

W is a ternary checkpoint, a packed file, or a float checkpoint, which is ternarized in one shot.
"""

import argparse
import sys
import warnings

from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from ..errors import InputError
from ..inference import calibrate_packed
from ..packing.container import is_packed
from ..packing.packed_model import PackedModel
from ..packing.report import SizeReport, measure_size
from ..packing.source import packed_from_checkpoint, packed_from_model
from ..training.config_file import read_config
from ..training.preflight import check_weights
from ..training.setting_checks import check_model_settings
from .classification import NETWORKS, build_classifier, classifier_config
from .inputs import IMPORT, built_from, check_class_names, check_target, records_of
from .mistakes import told_in_one_line

__all__ = ["ONE_SHOT", "main", "pack", "packed_from_words", "split_words"]

ONE_SHOT = (
    "Latent weights were rounded in one shot: sizes count, AP only of the shift scaler or after a "
    "fine-tuning with FREEZE_START 1.0."
)


def pack(
    words: list[str],
    output: str | None = None,
    calibrate: str | None = None,
    config_file: str | None = None,
    network: str | None = None,
) -> SizeReport:
    """Write a packed file, load it back and compare every weight.

    Args:
        words, config_file, network: as :func:`packed_from_words` has them.
        output: file to write; without it a temporary one.
        calibrate: data set whose first pictures give the ranges that the engine int8 needs.

    Raises:
        InputError: the weights, the data set or a value of the config cannot be used.
        OSError: a file cannot be read or written.
    """
    if output:
        check_target(output)
    if calibrate:
        records_of(calibrate)
    packed, one_shot = packed_from_words(words, config_file, network)
    if calibrate:
        calibrate_packed(packed, calibrate)
    return measure_size(packed, output, one_shot)


def packed_from_words(
    words: list[str], config_file: str | None = None, network: str | None = None
) -> tuple[PackedModel, bool]:
    """A packed model, and whether it was ternarized for that in one shot.

    Args:
        words: a file of weights, if there is one, and keys and values that override the config.
        config_file: config of the detector; None for a packed file, which has its own.
        network: a classification network of torchvision in place of a detector.

    Raises:
        InputError: the weights or a value of the config cannot be used.
    """
    file, overrides = split_words(words)
    if network is not None:
        model, architecture = build_classifier(network, file or "")
        return packed_from_model(model, classifier_config(network, overrides), architecture)
    if config_file is None:
        if file is None or overrides:
            raise InputError("give --config-file, or a packed file alone")
        is_other = not file.endswith(".safetensors") and PathManager.isfile(file)
        if is_other and not is_packed(PathManager.get_local_path(file)):
            raise InputError(f"{file} is no packed model; give its --config-file too")
        return PackedModel.read(file), False
    weights = [] if file is None else ["MODEL.WEIGHTS", file]
    cfg = read_config(config_file, [*overrides, *weights])
    check_weights(cfg.MODEL.WEIGHTS)
    others = [key for key in overrides[::2] if key != "MODEL.WEIGHTS"]
    named = cfg.MODEL.WEIGHTS
    if others and named and is_packed(PathManager.get_local_path(named.split("?")[0])):
        raise InputError(f"{named} is packed already: {others[0]} does not change it")
    check_model_settings(cfg)
    check_class_names(cfg)
    with built_from(cfg):
        return packed_from_checkpoint(cfg)


def split_words(words: list[str]) -> tuple[str | None, list[str]]:
    """A file, if the words are one more than keys and values, and the keys and values."""
    return (words[0], words[1:]) if len(words) % 2 else (None, words)


def main() -> None:
    """Run by the arguments of the command line."""
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
    parser.add_argument("--import", **IMPORT)
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
        print(ONE_SHOT)
    print(f"{args.output}: {report.file_bytes} bytes\n{report.summary()}")
    sys.exit(0 if report.verified else 1)


if __name__ == "__main__":
    main()
