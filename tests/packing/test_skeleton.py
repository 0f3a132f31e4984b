import time

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from ptq_det.packing import PackedFileError
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.skeleton import build_skeleton


def test_building_draws_no_random_weights(cfg):
    state = torch.get_rng_state()
    model = build_skeleton(Architecture(), cfg.clone(), "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.state_dict().keys() == build_model(cfg).state_dict().keys()


def test_shapes_alone_need_no_memory(cfg):
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 1 << 14
    model = build_skeleton(Architecture(), cfg, "m", "meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert len(model.roi_heads.box_head.fc1.weight) == 1 << 14
    network = build_skeleton(Architecture("torchvision", "resnet18", 7), None, "m", "meta")
    assert network.fc.weight.shape == (7, 512) and network.fc.weight.device.type == "meta"


def test_a_network_that_torchvision_does_not_have_is_refused():
    with pytest.raises(PackedFileError, match="m: torchvision has no network 'no_net'"):
        build_skeleton(Architecture("torchvision", "no_net", 5), None, "m")
    for classes in (0, -1, 1 << 40):
        with pytest.raises(PackedFileError, match="m: it claims"):
            build_skeleton(Architecture("torchvision", "resnet18", classes), None, "m")


@pytest.mark.parametrize(
    ("node", "key", "value", "message"),
    [
        ("ROI_MASK_HEAD", "NUM_CONV", 1 << 22, "more than 5000 parts"),
        ("ROI_BOX_HEAD", "FC_DIM", 1 << 22, "more than 1073741824 weights"),
        ("ROI_BOX_HEAD", "POOLER_RESOLUTION", 1 << 22, "cannot be built|weights"),
        ("RESNETS", "DEPTH", 3, "cannot be built"),
        ("RESNETS", "NUM_GROUPS", -1, "cannot be built"),
        ("ROI_HEADS", "NAME", "NoSuchHeads", "NoSuchHeads.*import the plugin"),
        ("FPN", "OUT_CHANNELS", -3, "cannot be built"),
        ("ANCHOR_GENERATOR", "SIZES", [[[[]]]], "cannot be built"),
    ],
)
def test_absurd_models_are_refused_at_once(node, key, value, message, cfg):
    cfg.MODEL[node][key] = value
    start = time.perf_counter()
    with pytest.raises(PackedFileError, match=message):
        build_skeleton(Architecture(), cfg, "m", "meta")
    assert time.perf_counter() - start < 2
    nn.Linear(1 << 10, 1 << 10)  # and bounds end with it
