"""Files as earlier versions of ptq_det wrote them: every later one reads them, to the same weights.

``files/version_N.safetensors`` was written by the code that introduced or last wrote version N, from
a tiny Mask R-CNN with random weights; beside it are the digests of its weights and figures of its
features then. They are never written anew.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ptq_det import load_packed, packed_config
from ptq_det.packing.container import _READABLE
from ptq_det.packing.packed_model import PackedModel

FILES = Path(__file__).parent / "files"
PICTURE = ((np.arange(3 * 64 * 64) * 37) % 256).reshape(3, 64, 64)


@pytest.mark.parametrize("version", _READABLE)
def test_the_weights_are_those_that_were_packed(version):
    expected = json.loads((FILES / f"version_{version}.json").read_text())
    packed = PackedModel.read(FILES / f"version_{version}.safetensors")
    weights = {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]
        for name, tensor in packed.state_dict().items()
    }
    assert weights == expected["weights"]
    assert packed.classes == expected["classes"] and len(packed.ranges) == expected["ranges"]


@pytest.mark.parametrize("version", _READABLE)
def test_the_model_gives_what_it_gave(version):
    expected = json.loads((FILES / f"version_{version}.json").read_text())["features"]
    path = FILES / f"version_{version}.safetensors"
    model = load_packed(path, "cpu")
    picture = {"image": torch.from_numpy(PICTURE), "height": 64, "width": 64}
    features = model.backbone(model.preprocess_image([picture]).tensor)
    for name, figures in expected.items():
        x = features[name]
        assert [float(x.mean()), float(x.std()), float(x[0, 3, 0, 0])] == pytest.approx(
            figures, abs=1e-3
        )
    assert packed_config(path).MODEL.FPN.OUT_CHANNELS == 16
