"""The weights and configs that come with the package."""

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg

from ptq_det import add_ternary_config, load_packed, packed_config
from ptq_det.data.weights import WEIGHTS_FOLDER
from ptq_det.kernels import why_no_kernels
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.container import VERSION, Container
from ptq_det.packing.packed_model import PackedModel

FLOAT, PACKED = (f"ptq_det://shapes_mask_rcnn_{kind}.safetensors" for kind in ("float", "ptq"))


def test_float_weights_fill_their_model():
    cfg = packed_config(PACKED)
    model = build_float_model(cfg)
    weights = DetectionCheckpointer(model).load(FLOAT)
    assert not weights.get("incompatible", [])


def test_a_config_has_an_address_that_detectron2_s_tools_read():
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.merge_from_file("ptq_det://configs/small_data/mask_rcnn_R50_224_ptq.yaml")
    assert cfg.TERNARY.ENABLED and cfg.MODEL.RESNETS.DEPTH == 50


def test_the_packed_detector_is_small_calibrated_and_names_its_classes():
    packed = PackedModel.read(PACKED)
    assert (WEIGHTS_FOLDER / PACKED.removeprefix("ptq_det://")).stat().st_size < 400_000
    assert packed.ranges and packed.classes[:2] == ["circle", "square"]
    assert Container.read(WEIGHTS_FOLDER / PACKED.removeprefix("ptq_det://")).version == VERSION


def test_it_finds_a_circle():
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    inside = (rows - 64) ** 2 + (columns - 64) ** 2 < 28**2
    picture = torch.where(inside, 210, 60).float().expand(3, 128, 128).contiguous()
    for engine in ("float", "int8", *(["sparse"] if why_no_kernels() is None else [])):
        model = load_packed(PACKED, "cpu", engine)
        (found,) = model([{"image": picture, "height": 128, "width": 128}])
        found = found["instances"]
        best = found[found.scores > 0.5]
        assert len(best) and (best.pred_boxes.get_centers() - 64).abs().max() < 12
