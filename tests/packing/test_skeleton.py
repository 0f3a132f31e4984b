import time

import pytest
import torch
from detectron2 import model_zoo
from torch import nn

from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing import PackedFileError
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.skeleton import WithoutRandomWeights, build_skeleton


def test_building_draws_no_random_weights(cfg):
    state = torch.get_rng_state()
    model = build_skeleton(Architecture(), cfg.clone(), "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.state_dict().keys() == build_float_model(cfg).state_dict().keys()


def test_what_is_no_parameter_is_filled():
    """A file does not have it."""
    with WithoutRandomWeights():
        scale, weight = torch.empty(3), nn.Parameter(torch.full((3,), 7.0))
        assert nn.init.constant_(tensor=scale, val=2.0) is scale
        assert nn.init.constant_(weight, 2.0) is weight
    assert scale.tolist() == [2.0] * 3 and weight.tolist() == [7.0] * 3


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


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "r3d_18"])
def test_networks_that_would_fetch_weights_are_refused(name, monkeypatch):
    def fetch(*args, **kwargs):
        raise AssertionError("weights are fetched")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fetch)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    with pytest.raises(PackedFileError, match=f"torchvision has no network '{name}'"):
        build_skeleton(Architecture("torchvision", name, 5), None, "m", "meta")


def test_a_network_that_cannot_be_built_without_weights_is_refused():
    with pytest.raises(PackedFileError, match=r"m: 'regnet_y_400mf' cannot be built \(NotImpl"):
        build_skeleton(Architecture("torchvision", "regnet_y_400mf", 5), None, "m", "meta")


ROTATED = {
    "PROPOSAL_GENERATOR.NAME": "RRPN",
    "ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
    "RPN.BBOX_REG_WEIGHTS": (1.0,) * 5,
    "ROI_HEADS.NAME": "RROIHeads",
    "ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0, 1.0),
    "ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
}


def rotated(cfg, keys):
    cfg.MODEL.MASK_ON = False
    cfg.merge_from_list([x for key in keys for x in (f"MODEL.{key}", ROTATED[key])])
    return build_skeleton(Architecture(), cfg, "m", "meta")


def test_rotated_models_are_built(cfg):
    rotated(cfg.clone(), ROTATED)
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"  # which has no heads, whatever they are
    rotated(cfg, list(ROTATED)[:3])


@pytest.mark.parametrize(
    "keys",
    [
        ["PROPOSAL_GENERATOR.NAME"],
        ["ANCHOR_GENERATOR.NAME"],
        ["RPN.BBOX_REG_WEIGHTS"],
        ["ROI_BOX_HEAD.BBOX_REG_WEIGHTS"],
        ["ROI_BOX_HEAD.POOLER_TYPE"],
        list(ROTATED)[:3],
        list(ROTATED)[3:],
        *(sorted({*ROTATED} - {key}) for key in ROTATED),
    ],
    ids=range(13),
)
def test_parts_for_other_boxes_are_refused(keys, cfg):
    with pytest.raises(PackedFileError, match=r"boxes without|weights of a box|cannot be built"):
        rotated(cfg, keys)


def test_a_retinanet_with_rotated_anchors_is_refused(cfg):
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
    build_skeleton(Architecture(), cfg.clone(), "m", "meta")
    cfg.MODEL.ANCHOR_GENERATOR.NAME = "RotatedAnchorGenerator"
    with pytest.raises(PackedFileError, match="boxes without"):
        build_skeleton(Architecture(), cfg, "m", "meta")


def test_a_stride_above_those_of_the_features_is_refused(cfg):
    name = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
    cfg.merge_from_file(model_zoo.get_config_file(name))
    build_skeleton(Architecture(), cfg.clone(), "m", "meta")
    cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE = 32
    with pytest.raises(PackedFileError, match="'sem_seg_head' has a stride above"):
        build_skeleton(Architecture(), cfg, "m", "meta")


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


def test_truncated_normal_weights_come_to_an_end():
    with WithoutRandomWeights():
        weight = nn.init.trunc_normal_(
            nn.Parameter(torch.full((64, 64), 9.0)), std=0.02, a=-0.1, b=0.1
        )
    assert float(weight.abs().max()) <= 0.1
