"""Installs the Python package ptq_det."""

import platform
import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "ptq_det/__init__.py").read_text()).group(1)

# The kernels of the engine `sparse`, a library for each kind of CPU; which one runs is chosen then.
FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"],
}
if platform.machine().lower() in ("aarch64", "arm64"):
    FLAGS = {"neon": []}
elif platform.machine().lower() not in ("x86_64", "amd64") or platform.system() == "Windows":
    FLAGS = {}
SOURCES = "ptq_det/kernels"
KERNELS = [
    Extension(
        f"ptq_det.kernels._{kind}",
        [f"{SOURCES}/convolution.cpp", f"{SOURCES}/detector.cpp"],
        depends=["setup.py", *map(str, HERE.glob(f"{SOURCES}/*.h"))],
        extra_compile_args=["-std=c++17", "-O3", "-g0", *flags],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,  # without a compiler the other engines run
    )
    for kind, flags in FLAGS.items()
]

setup(
    name="ptq_det",
    version=VERSION,
    description="Pruning ternary quantization (PTQ) for Detectron2",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["ptq_det", "ptq_det.*"]),
    ext_modules=KERNELS,
    package_data={
        "ptq_det": ["py.typed"],
        "ptq_det.data": ["weights/*.safetensors"],
        "ptq_det.kernels": ["*.cpp", "*.h"],
    },
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",  # NumPy 1 has no wheels for later versions
    # Detectron2 is not among these: PyPI has no official one, and one that is installed must stay.
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "numpy<2",  # Detectron2 of 2024 uses what NumPy 2 took away
        "setuptools<81",  # detectron2.model_zoo needs pkg_resources
        "fvcore>=0.1.5,<0.1.6",
        "iopath",
        "pycocotools",
        "safetensors",
        "constriction>=0.4,<0.6",  # its bit stream is part of the file format
        "tqdm",
        "Pillow",
    ],
    extras_require={
        "demo": ["opencv-python-headless<4.12", "matplotlib<3.11"],
        "dev": ["pytest", "ruff"],
        # What tools/export_onnx.py needs; to run its models takes less (docs/deployment.md).
        "onnx": ["onnx>=1.16", "onnxruntime>=1.20"],
        # What tools/benchmark.py compares the codec with.
        "benchmark": ["nncodec", "zstandard"],
        # And the packed file on other runtimes with.
        "runtimes": ["onnx>=1.16", "onnxruntime>=1.20", "openvino>=2025", "nncf>=3"],
        # What Detectron2 itself needs, for one that was installed without its dependencies.
        "detectron2": [
            "black",
            "cloudpickle",
            "hydra-core",
            "matplotlib<3.11",
            "omegaconf",
            "packaging",
            "tabulate",
            "tensorboard",
            "termcolor",
            "yacs",
        ],
    },
)
