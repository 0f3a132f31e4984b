"""Weights and configs that come with the package, under the address ``ptq_det://``."""

from pathlib import Path

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

__all__ = ["CONFIGS_FOLDER", "WEIGHTS_FOLDER", "register_weights"]

_PACKAGE = Path(__file__).parents[1]
WEIGHTS_FOLDER = _PACKAGE / "data/weights"
# In a wheel the configs are in the package (setup.py), in a clone beside it.
_IN_WHEEL = _PACKAGE / "configs"
CONFIGS_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent / "configs"
_PREFIX = "ptq_det://"
_CONFIGS = "configs/"


class _PackagedFiles(PathHandler):
    def _get_supported_prefixes(self):
        return [_PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        name = path.removeprefix(_PREFIX)
        if name.startswith(_CONFIGS):
            return str(CONFIGS_FOLDER / name.removeprefix(_CONFIGS))
        return str(WEIGHTS_FOLDER / name)

    def _isfile(self, path, **kwargs):
        return Path(self._get_local_path(path)).is_file()

    def _exists(self, path, **kwargs):
        return Path(self._get_local_path(path)).exists()

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        return open(self._get_local_path(path), mode, buffering=buffering)


def register_weights() -> None:
    """Make ``ptq_det://FILE`` name a file of the package, as ``detectron2://`` names the zoo's.

    ``ptq_det://configs/FILE`` is one of its configs, the others are weights.
    """
    PathManager.register_handler(_PackagedFiles(), allow_override=True)
