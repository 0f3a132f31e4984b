"""What commands name: modules, data sets, files to write, models of a config."""

import os
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import InputError
from ..modeling.meta_arch import build_float_model
from ..plugins import import_plugin
from ..training.data_checks import check_datasets
from ..training.setting_checks import building

__all__ = ["IMPORT", "built_from", "check_class_names", "check_target", "records_of"]


def _imported(name: str) -> str:
    """Import a module, as argparse's ``type``: before anything is read that it may add to."""
    try:
        import_plugin(name)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from error
    return name


# The option --import of the tools that read a config.
IMPORT = {
    "type": _imported,
    "action": "append",
    "dest": "modules",
    "metavar": "MODULE",
    "help": "module that registers parts of models and, by add_*_config, keys; may be given again",
}


@contextmanager
def built_from(cfg: CfgNode) -> Iterator[None]:
    """Say it where an error comes of a model that cannot be built from a config; others pass."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        with building("the model"):
            build_float_model(cfg)
        raise


def records_of(name: str) -> list[dict]:
    """The records of a registered data set, of which there is one at least.

    Raises:
        InputError: it is not registered, its files are not there or cannot be read, or it is empty.
    """
    check_datasets([name])
    try:
        records = DatasetCatalog.get(name)
    except Exception as error:  # of broken files, and of functions of others
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"data set {name!r} cannot be read ({type(error).__name__}: {reason}); mend "
            f"{MetadataCatalog.get(name).get('json_file', 'its annotations')!r}, or get it again"
        ) from error
    if not isinstance(records, list) or not records:
        raise InputError(f"data set {name!r} has no pictures; name another one")
    return records


def check_class_names(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if a training set, which tells a packed file the names of its
    classes, is there and cannot be read."""
    for name in cfg.DATASETS.TRAIN:
        if name in DatasetCatalog and not MetadataCatalog.get(name).get("thing_classes"):
            try:
                DatasetCatalog.get(name)
            except OSError:  # the data are elsewhere, and the file has no names then
                continue
            except Exception as error:  # as above
                reason = " ".join(str(error).split())[:200]
                raise InputError(
                    f"training set {name!r}, which tells the names of the classes, cannot be read "
                    f"({type(error).__name__}: {reason}); mend its annotations, or set "
                    'DATASETS.TRAIN "()" for a file without names'
                ) from error


def check_target(path: str | os.PathLike) -> None:
    """Raise :class:`InputError` if a file cannot be written to a path, before it is computed."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise InputError(f"{os.fspath(path)!r} is a folder; give the name of a file to write")
    if not os.path.isdir(folder):
        raise InputError(f"{os.fspath(path)!r} cannot be written: there is no folder {folder!r}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{os.fspath(path)!r} cannot be written: {folder!r} is not writable")
