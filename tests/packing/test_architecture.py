import pytest
import torch
from detectron2.modeling import build_model

from ptq_det.packing import PackedFileError
from ptq_det.packing.architecture import build_architecture


def test_building_draws_no_random_weights(cfg):
    state = torch.get_rng_state()
    model = build_architecture(["detectron2"], lambda: cfg, "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.state_dict().keys() == build_model(cfg).state_dict().keys()


@pytest.mark.parametrize("architecture", [["torchvision", "no_net", 5], ["torchvision"], [], [[]]])
def test_unknown_architectures_are_refused(architecture, cfg):
    with pytest.raises(PackedFileError, match="m: its architecture"):
        build_architecture(architecture, lambda: cfg, "m")
