import subprocess
import sys

import pytest


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )


def test_public_names():
    import ptq_det

    names = (
        "add_ternary_config ternarize PTQHook TernaryTrainer pack_model load_packed packed_config"
    )
    assert set(names.split()) <= set(ptq_det.__all__)
    assert all(hasattr(ptq_det, name) for name in ptq_det.__all__)


@pytest.mark.parametrize(
    "use", ["ptq_det.load_packed", "from ptq_det import PTQHook", "from ptq_det import *"]
)
def test_without_detectron2_what_needs_it_says_how_to_install_it(use):
    done = run(f"import sys; sys.modules['detectron2'] = None; import ptq_det; {use}")
    assert done.returncode == 1
    assert "pip install" in done.stderr and "make venv" in done.stderr


def test_codes_and_files_need_neither_torch_nor_detectron2(tmp_path):
    done = run(f"""
import sys
for name in ("torch", "torchvision", "detectron2", "fvcore"):
    sys.modules[name] = None
import numpy as np
import ptq_det
from ptq_det.packing import codec, container, packed_layer
from ptq_det.packing.architecture import Architecture
codes = np.ones((3, 4, 1, 1), np.int8)
layer = packed_layer.PackedLayer("ternary", (3, 4), None, codes, np.ones((1, 3), np.float32))
file = container.Container(layer.to_tensors(), {{"architecture": str(Architecture().to_json())}})
file.write(r"{tmp_path / "m.safetensors"}")
back = container.Container.read(r"{tmp_path / "m.safetensors"}")
print(packed_layer.PackedLayer.from_file(layer.to_metadata(), back.tensors).weight().sum())
assert not hasattr(ptq_det, "no_such_name")
""")
    assert done.stdout.strip() == "12.0", done.stderr
