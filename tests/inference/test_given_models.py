"""Models that no YAML describes on integers: given by who loads them, calibrated on any loader."""

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from torch import nn

from ptq_det import load_packed, pack_model, packed_config
from ptq_det.errors import EngineError, InputError
from ptq_det.inference import calibrate_packed
from ptq_det.kernels import why_no_kernels
from ptq_det.lazy import ternary
from ptq_det.packing.packed_model import PackedModel
from tests.lazy_models import narrow_rcnn, narrow_retinanet, narrow_vitdet
from tests.packing.conftest import _randomize_norms

PICTURE = {"image": torch.randint(0, 256, (3, 96, 80)), "height": 96, "width": 80}


def calibrated(make, path):
    """The node of a model and its calibrated file."""
    node = LazyCall(ternary)(model=make(), sparsity=0.6, require_trained=False)
    model = instantiate(node)
    _randomize_norms(model)
    pack_model(model.eval(), node, path)
    packed = PackedModel.read(path, model=node)
    calibrate_packed(packed, [[PICTURE]])
    packed.write(path)
    return node


@torch.no_grad()
def logits_of(model):
    """What RPN's or RetinaNet's head gives for each place."""
    features = model.backbone(model.preprocess_image([PICTURE]).tensor)
    is_dense = hasattr(model, "head")
    names = model.head_in_features if is_dense else model.proposal_generator.in_features
    head = model.head if is_dense else model.proposal_generator.rpn_head
    return torch.cat([x.flatten() for x in head([features[name] for name in names])[0]])


needs_kernels = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))


@pytest.mark.parametrize("engine", ["int8", pytest.param("sparse", marks=needs_kernels)])
@pytest.mark.parametrize("make", [narrow_rcnn, narrow_retinanet])
def test_engines_on_integers_run_them(make, engine, tmp_path):
    node = calibrated(make, tmp_path / "m.safetensors")
    own = instantiate(node)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    model = load_packed(tmp_path / "m.safetensors", engine=engine, model=own)
    expected = logits_of(load_packed(tmp_path / "m.safetensors", "cpu", model=node))
    error = (logits_of(model) - expected).norm() / expected.norm()
    assert 0 < float(error) < 0.1
    assert set(model([PICTURE])[0]) == {"instances"}
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_an_engine_that_cannot_says_why(tmp_path):
    node = calibrated(narrow_vitdet, tmp_path / "m.safetensors")
    with pytest.raises(EngineError, match="it has a SimpleFeaturePyramid, not a FPN"):
        load_packed(tmp_path / "m.safetensors", engine="int8", model=node)


def test_calibration_takes_so_many_pictures_of_a_loader(tmp_path):
    node = calibrated(narrow_rcnn, tmp_path / "m.safetensors")
    packed = PackedModel.read(tmp_path / "m.safetensors", model=node)
    assert "roi_heads.mask_head.predictor" in packed.ranges
    read = []

    def endless():
        while True:
            read.append([PICTURE] * 20)
            yield read[-1]

    calibrate_packed(packed, endless())
    assert len(read) == 2  # 32 pictures
    with pytest.raises(InputError, match=r"has no config of Detectron2.*model=instantiate"):
        calibrate_packed(packed, "few_val")
    with pytest.raises(InputError, match="has no config"):
        packed_config(tmp_path / "m.safetensors")
    assert isinstance(packed.build("cpu"), nn.Module)
