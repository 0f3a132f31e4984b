import pytest
import torch
from detectron2.modeling import build_model

from ptq_det.packing import PackedFileError
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.skeleton import build_skeleton


def test_building_draws_no_random_weights(cfg):
    state = torch.get_rng_state()
    model = build_skeleton(Architecture(), lambda: cfg, "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.state_dict().keys() == build_model(cfg).state_dict().keys()


def test_a_network_that_torchvision_does_not_have_is_refused(cfg):
    with pytest.raises(PackedFileError, match="m: torchvision has no network 'no_net'"):
        build_skeleton(Architecture("torchvision", "no_net", 5), lambda: cfg, "m")
