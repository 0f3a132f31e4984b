"""The compiled kernels: found, chosen for this CPU, loaded."""

import ctypes
import functools
import platform
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

__all__ = ["CEnd", "CLevel", "CMap", "Kernels", "kinds_here", "why_no_kernels"]

_FOLDER = Path(__file__).parent
# What each kind of kernels needs of the CPU, the fastest first (setup.py builds these).
_FLAGS = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    "avx2": {"avx2", "fma"},
}


class CMap(ctypes.Structure):
    """``PtqMap``."""

    _fields_ = [("data", c_void_p)] + [
        (name, c_int32) for name in ("channels", "images", "height", "width", "low", "high")
    ]


class CEnd(ctypes.Structure):
    """``PtqEnd``."""

    _fields_ = [
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("added", POINTER(CMap)),
        ("added_scale", c_float),
        ("relu", c_int32),
        ("out", POINTER(CMap)),
        ("floats", c_void_p),
    ]


class CLevel(ctypes.Structure):
    """``PtqLevel``."""

    _fields_ = [("pixels", c_void_p), ("height", c_int32), ("width", c_int32), ("scale", c_float)]


def kinds_here() -> list[str]:
    """Kinds of kernels that this CPU can run, the fastest first."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return ["neon"]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return [kind for kind, needed in _FLAGS.items() if needed <= flags]


def _built(kind: str) -> Path | None:
    return next(iter(sorted(_FOLDER.glob(f"_{kind}*.so"))), None)


def why_no_kernels() -> str | None:
    """Why there are no kernels here, or None."""
    kinds = kinds_here()
    if not kinds:
        return "it needs a CPU with AVX2 under Linux, or with NEON"
    if not any(map(_built, kinds)):
        return (
            "its kernels were not built, as there was no C++ compiler; install one and run "
            "`pip install --no-deps -e .` again in the clone"
        )
    return None


class Kernels:
    """Functions of a compiled library; see convolution.cpp and detector.cpp.

    Args:
        path: the library.

    Attributes:
        kind: which registers they are for: "avx2", "avx512" or "neon".
    """

    def __init__(self, path: Path):
        self.kind = path.name[1:].partition(".")[0]
        self._library = ctypes.CDLL(str(path))
        map_, end = POINTER(CMap), POINTER(CEnd)
        for name, result, *arguments in (
            ("ptq_plane", c_int64, map_),
            ("ptq_lead", c_int64, map_),
            ("ptq_layer", c_void_p, c_void_p, c_void_p, c_int32),
            ("ptq_free", None, c_void_p),
            ("ptq_bytes", c_int64, c_void_p),
            ("ptq_convolve", c_int32, c_void_p, map_, map_, end, c_int32),
            ("ptq_from_floats", None, c_void_p, map_, c_float, c_int32),
            ("ptq_max_pool", None, map_, map_, c_int32, c_int32, c_int32, c_int32),
            ("ptq_upsample", None, map_, map_, c_int32),
            ("ptq_pixels", None, map_, c_void_p, c_int32),
            (
                "ptq_roi_align",
                None,
                *(POINTER(CLevel), c_void_p, c_void_p, c_int32),
                *(c_int32, c_int32, c_int32, map_, c_int32, c_int32),
            ),
            (
                "ptq_paste",
                None,
                *(c_void_p, c_void_p, c_int32, c_int32, c_int32, c_int32),
                *(c_float, c_void_p, c_int32),
            ),
        ):
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("ptq_"), function)

    @classmethod
    @functools.cache
    def here(cls) -> "Kernels":
        """The fastest that were built and that this CPU can run; asked where there are some."""
        return cls(next(filter(None, map(_built, kinds_here()))))
