"""Reads a lazy config, and checks what it names before any work."""

import os

import torch
from detectron2.config import LazyConfig
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf

from ..errors import InputError
from ..lazy import makes_ternary, settings_in, training_sets
from .config_file import find_config_file
from .data_checks import check_datasets
from .preflight import check_weights, check_writable
from .resuming import last_checkpoint

__all__ = ["check_lazy_config", "read_lazy_config"]

_ALWAYS = ("model", "dataloader", "train", "train.output_dir", "train.device")
_TRAINING = (
    *("dataloader.train", "optimizer", "lr_multiplier"),
    *("train.max_iter", "train.amp.enabled", "train.checkpointer", "train.eval_period"),
)


def read_lazy_config(path: str, overrides: list[str]) -> DictConfig:
    """Read a lazy config, a file or one of Detectron2's model zoo by its name there.

    Args:
        path: of the Python file (or of the YAML that ``LazyConfig.save`` wrote), or name.
        overrides: such as ``train.max_iter=100``.

    Raises:
        InputError: there is no such config, running it fails, or an override is wrong.
    """
    path = find_config_file(path)
    if not path.endswith(".py") and not _is_saved(path):
        raise InputError(
            f"{path} is no lazy config, which is a Python file; tools/train_net.py takes YAML"
        )
    try:
        cfg = LazyConfig.load(path)
    except Exception as error:  # a config is a program
        raise InputError(f"{path}: {type(error).__name__}: {_in_one_line(error)}") from error
    try:
        return LazyConfig.apply_overrides(cfg, overrides)
    except Exception as error:  # of hydra's grammar, of keys that are values
        raise InputError(
            f"an override of {' '.join(overrides)!r}: {_in_one_line(error)}. They look like "
            "train.max_iter=100 ternary.sparsity=0.85"
        ) from error


def check_lazy_config(cfg: DictConfig, training: bool, resume: bool) -> None:
    """Check what a lazy config has and names, as far as no model is built for that.

    Args:
        cfg: as Detectron2's ``lazyconfig_train_net.py`` takes them.
        training: whether it is trained, or evaluated alone.
        resume: whether a checkpoint of the output folder is gone on from.

    Raises:
        InputError: something is missing or cannot be used; the message says what to do.
    """
    needed = (*_ALWAYS, *_TRAINING) if training else _ALWAYS
    missing = [key for key in needed if OmegaConf.select(cfg, key) is None]
    if missing:
        raise InputError(
            f"the config has no {', '.join(missing)}; Detectron2's own have them, e.g. "
            'train = zoo_config("common/train.py").train, which ptq_det.data.zoo has'
        )
    if not makes_ternary(cfg):
        raise InputError(
            "the config says nothing of ternary layers; give it the node `ternary`, e.g. "
            "ternary = dict(sparsity=0.8), or ternary.enabled=False for a float training"
        )
    settings_in(cfg)
    device = str(cfg.train.device)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"train.device is {device!r}, but PyTorch finds no GPU; set train.device=cpu to run on "
            "the processor"
        )
    if training and cfg.train.max_iter < 1:
        raise InputError(f"train.max_iter is {cfg.train.max_iter}, so nothing is trained")
    check_writable(cfg.train.output_dir, "train.output_dir")
    last = last_checkpoint(cfg.train.output_dir) if resume else None
    if resume and not training and last is None:
        raise InputError(
            "--resume evaluates the last checkpoint of train.output_dir "
            f"{cfg.train.output_dir!r}, which has none; leave it out to evaluate "
            "train.init_checkpoint"
        )
    if last is None:
        check_weights(cfg.train.get("init_checkpoint", ""), "train.init_checkpoint")
    check_datasets([*(training_sets(cfg) if training else []), *_test_sets(cfg)])


def _test_sets(cfg: DictConfig) -> list[str]:
    found = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    return [found] if isinstance(found, str) else list(found or [])


def _is_saved(path: str) -> bool:
    """Whether a YAML is one of ``LazyConfig.save``, which writes ``_target_``."""
    if os.path.splitext(path)[1] not in (".yaml", ".yml"):
        return False
    with PathManager.open(path) as file:
        return "_target_" in file.read()


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
