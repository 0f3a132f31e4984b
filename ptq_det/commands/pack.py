"""Packed models from what a command names, and calibrated ones; ``tools/pack.py`` writes them."""

from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..inference import calibrate_packed
from ..packing.container import is_packed
from ..packing.packed_model import PackedModel
from ..packing.report import SizeReport, measure_size
from ..packing.source import packed_from_checkpoint, packed_from_model
from ..training.config_file import read_config
from ..training.preflight import check_weights
from ..training.setting_checks import check_model_settings
from .classification import build_classifier, classifier_config
from .inputs import built_from, check_class_names, check_target, records_of

__all__ = ["pack", "packed_from_words", "split_words"]


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
