"""Weights that come with the package, under the address ``ptq_det://``."""

from pathlib import Path

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

__all__ = ["WEIGHTS_FOLDER", "register_weights"]

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
_PREFIX = "ptq_det://"


class _PackagedWeights(PathHandler):
    def _get_supported_prefixes(self):
        return [_PREFIX]

    def _get_local_path(self, path, force=False, **kwargs):
        return str(WEIGHTS_FOLDER / path.removeprefix(_PREFIX))

    def _isfile(self, path, **kwargs):
        return Path(self._get_local_path(path)).is_file()

    def _exists(self, path, **kwargs):
        return Path(self._get_local_path(path)).exists()

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        return open(self._get_local_path(path), mode, buffering=buffering)


def register_weights() -> None:
    """Make ``ptq_det://FILE`` name a file of the package, as ``detectron2://`` names the zoo's."""
    PathManager.register_handler(_PackagedWeights(), allow_override=True)
