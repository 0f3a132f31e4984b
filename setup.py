"""Installs the Python package ptq_det."""

import platform
import re
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1 make wheels by the package wheel
    from wheel.bdist_wheel import bdist_wheel

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
        # Python is built with -fwrapv, which costs these loops up to 8 %.
        extra_compile_args=["-std=c++17", "-O3", "-g0", "-fno-wrapv", "-fstrict-overflow", *flags],
        extra_link_args=["-pthread"],
        language="c++",
        optional=True,  # without a compiler the other engines run
    )
    for kind, flags in FLAGS.items()
]


class BuildWithConfigs(build_py):
    """Puts the configs into the package, where they have no place in a clone."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, target in self._configs().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode=1):
        return [*super().get_outputs(include_bytecode), *self._configs().values()]

    def get_output_mapping(self):
        return {**super().get_output_mapping(), **{b: a for a, b in self._configs().items()}}

    def _configs(self):
        """Source and target of each config, paths as setuptools has them."""
        files = [*Path("configs").rglob("*.yaml"), *Path("configs").rglob("*.py")]
        return {str(file): str(Path(self.build_lib, "ptq_det", file)) for file in sorted(files)}


class AnyPython(bdist_wheel):
    """Kernels are for a machine but for every Python; a wheel without them is for all machines."""

    def get_tag(self):
        kernels = self.get_finalized_command("build_ext").get_outputs()
        built = any(Path(kernel).exists() for kernel in kernels)
        return "py3", "none", super().get_tag()[2] if built else "any"


setup(
    name="ptq_det",
    version=VERSION,
    description="Pruning ternary quantization (PTQ) for Detectron2",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["ptq_det", "ptq_det.*"]),
    ext_modules=KERNELS,
    cmdclass={"bdist_wheel": AnyPython, "build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["ptq-det = ptq_det.commands.__main__:main"]},
    package_data={
        "ptq_det": ["py.typed"],
        "ptq_det.data": ["weights/*.safetensors"],
        "ptq_det.kernels": ["*.cpp", "*.h"],
    },
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",  # those that were tried
    # Detectron2 is not among these: PyPI has no official one, and one that is installed must stay.
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "numpy",
        "fvcore>=0.1.5,<0.1.6",
        "iopath",
        "omegaconf",
        "pycocotools",
        "safetensors",
        "constriction>=0.4,<0.6",  # its bit stream is part of the file format
        "tqdm",
        "tabulate",
        "packaging",
        "PyYAML",
        "Pillow",
    ],
    extras_require={
        "demo": ["opencv-python-headless", "matplotlib"],
        "dev": ["pytest", "ruff"],
        # What tools/export_onnx.py needs; to run its models takes less (docs/deployment.md).
        "onnx": ["onnx>=1.16", "onnxruntime>=1.20"],
        # What tools/benchmark.py compares the codec with.
        "benchmark": ["nncodec", "zstandard"],
        # And the packed file on other runtimes with.
        "runtimes": ["onnx>=1.16", "onnxruntime>=1.20", "openvino>=2025", "nncf>=3"],
        # What the Detectron2 of 2024 needs, installed without its dependencies (Makefile).
        "detectron2": [
            "numpy<2",  # it uses what NumPy 2 took away
            "opencv-python-headless<4.12",  # later ones need NumPy 2
            "setuptools<81",  # its model zoo needs pkg_resources
            "black",
            "cloudpickle",
            "hydra-core",
            "matplotlib<3.11",
            "tensorboard",
            "termcolor",
            "yacs",
        ],
    },
)
