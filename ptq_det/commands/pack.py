"""Packs a checkpoint, or calibrates a packed file; ``tools/pack.py`` is its command line."""

from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..inference import calibrate_packed
from ..packing.container import is_packed
from ..packing.packed_model import PackedModel
from ..packing.report import SizeReport, measure_size
from ..packing.source import packed_from_checkpoint
from ..training.preflight import check_datasets, check_weights, read_config

__all__ = ["pack", "split_words"]


def pack(
    config_file: str | None, words: list[str], output: str, calibrate: str | None = None
) -> SizeReport:
    """Write a packed file, load it back and compare every weight.

    Args:
        config_file: config of the model; None where what is packed is a packed file.
        words: the file to pack, if it is not ``MODEL.WEIGHTS``, and keys and values that override
            the config.
        output: file to write.
        calibrate: data set whose first pictures give the ranges that the engine int8 needs.

    Raises:
        InputError: the weights, the data set or a value of the config cannot be used.
        OSError: a file cannot be read or written.
    """
    file, overrides = split_words(words)
    if calibrate:
        check_datasets([calibrate])
    if config_file is None:
        if file is None or overrides:
            raise InputError("give --config-file, or a packed file alone")
        is_other = not file.endswith(".safetensors") and PathManager.isfile(file)
        if is_other and not is_packed(PathManager.get_local_path(file)):
            raise InputError(f"{file} is no packed model; give its --config-file too")
        packed, one_shot = PackedModel.read(file), False
    else:
        weights = [] if file is None else ["MODEL.WEIGHTS", file]
        cfg = read_config(config_file, [*overrides, *weights])
        check_weights(cfg.MODEL.WEIGHTS)
        packed, one_shot = packed_from_checkpoint(cfg)
    if calibrate:
        calibrate_packed(packed, calibrate)
    return measure_size(packed, output, one_shot)


def split_words(words: list[str]) -> tuple[str | None, list[str]]:
    """A file, if the words are one more than keys and values, and the keys and values."""
    return (words[0], words[1:]) if len(words) % 2 else (None, words)
