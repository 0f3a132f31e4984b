import pytest
import torch
from detectron2.modeling import FPN

from ptq_det.errors import InputError
from ptq_det.inference.evaluation import (
    load_for_evaluation,
    packed_weights,
)
from ptq_det.inference.int8.backbone import Int8FPN
from tests.inference.conftest import PICTURE


def test_evaluation_takes_thresholds_from_the_config(file, cfg, device):
    cfg.TEST.DETECTIONS_PER_IMAGE = 3
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    kinds = {"": FPN, "float": FPN} | ({"int8": Int8FPN} if device == "cpu" else {})
    for cfg.TERNARY.ENGINE, kind in kinds.items():
        assert packed_weights(cfg, f"{file}?matching_heuristics=True") == file
        model = load_for_evaluation(cfg, file)
        assert type(model.backbone) is kind and model.device.type == device
        assert len(model([PICTURE])[0]["instances"]) == 3


def test_an_engine_needs_a_packed_file(cfg, tmp_path):
    torch.save({}, tmp_path / "model_final.pth")
    for weights in ("", str(tmp_path / "model_final.pth")):
        cfg.TERNARY.ENGINE = ""
        assert packed_weights(cfg, weights) is None
        cfg.TERNARY.ENGINE = "int8"
        with pytest.raises(InputError, match=r"int8 runs packed files.*model_final\.safetensors"):
            packed_weights(cfg, weights)


@pytest.mark.parametrize("engine", ["float", "int8"])
@pytest.mark.parametrize(
    ("node", "key", "value"),
    [("FPN", "OUT_CHANNELS", 8), ("ROI_HEADS", "NUM_CLASSES", 3), ("ROI_BOX_HEAD", "FC_DIM", 64)],
)
def test_a_file_of_another_config_is_refused(engine, node, key, value, file, cfg):
    cfg.MODEL[node][key] = value
    with pytest.raises(InputError, match=r"has the shape \(.*of another config.*packed_config"):
        load_for_evaluation(cfg, file, engine)
