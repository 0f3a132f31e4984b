import ctypes

import pytest

from ptq_det.kernels import library, why_no_kernels
from ptq_det.kernels.library import CMap, Kernels


def cpu(monkeypatch, machine, flags=""):
    monkeypatch.setattr(library.platform, "machine", lambda: machine)
    monkeypatch.setattr(library.Path, "read_text", lambda self: f"flags\t\t: {flags}\n")


def test_kinds_by_what_the_cpu_has(monkeypatch):
    cpu(monkeypatch, "x86_64", "sse2 avx2 fma")
    assert library.kinds_here() == ["avx2"]
    cpu(monkeypatch, "x86_64", "avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni")
    assert library.kinds_here() == ["avx512", "avx2"]
    cpu(monkeypatch, "x86_64", "avx2 fma avx512f avx512bw avx512dq avx512vl")
    assert library.kinds_here() == ["avx2"]
    cpu(monkeypatch, "arm64")
    assert library.kinds_here() == ["neon"]


def test_why_there_are_none(monkeypatch, tmp_path):
    cpu(monkeypatch, "x86_64", "sse2")
    assert "needs a CPU with AVX2" in why_no_kernels()
    cpu(monkeypatch, "x86_64", "avx2 fma")
    monkeypatch.setattr(library, "_FOLDER", tmp_path)
    assert "were not built" in why_no_kernels() and "compiler" in why_no_kernels()
    (tmp_path / "_avx2.cpython.so").touch()
    assert why_no_kernels() is None


@pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))
def test_structures_are_as_the_library_has_them():
    assert Kernels.here().kind in library.kinds_here()
    made = CMap(None, 3, 2, 5, 7, 0, 1)
    # A zero behind each row, a row of zeros behind each picture, and room at both ends.
    lead, plane = Kernels.here().lead(made), Kernels.here().plane(made)
    assert lead == 32 and plane >= lead + 2 * 6 * 8 + 64 and plane % 32 == 0
    assert ctypes.sizeof(CMap) == 32
