"""The kernels' sources as a program that checks itself: under sanitizers, and for NEON."""

import platform
import shutil
import subprocess

import pytest

from tests.conftest import REPO

SOURCES = [
    str(REPO / "ptq_det/kernels/convolution.cpp"),
    str(REPO / "ptq_det/kernels/detector.cpp"),
    str(REPO / "tests/kernels/check.cpp"),
]
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def run(words):
    return subprocess.run(words, capture_output=True, text=True, timeout=600)


def built(compiler, program, *flags):
    done = run([compiler, "-std=c++17", "-pthread", "-w", *flags, *SOURCES, "-o", str(program)])
    assert done.returncode == 0, done.stderr
    return str(program)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize("flags", [(), ("-mavx2", "-mfma")], ids=["any CPU", "AVX2"])
def test_sanitizers_find_nothing(flags, tmp_path):
    if platform.machine() not in ("x86_64", "AMD64") and flags:
        pytest.skip("it is for x86")
    sanitizers = "-fsanitize=address,undefined"
    program = built("g++", tmp_path / "check", "-O1", "-g", sanitizers, *flags)
    done = run([program, "12"])
    assert done.returncode == 0 and done.stdout == "12 cases\n" and not done.stderr, done.stderr


@pytest.mark.skipif(
    shutil.which(CROSS) is None or shutil.which(EMULATOR) is None,
    reason=f"there is no {CROSS} with {EMULATOR} (Debian: g++-aarch64-linux-gnu, qemu-user)",
)
def test_neon_gives_the_same(tmp_path):
    program = built(CROSS, tmp_path / "check", "-O2", "-static")
    done = run([EMULATOR, program, "10"])
    assert done.returncode == 0 and done.stdout == "10 cases\n", done.stdout + done.stderr
