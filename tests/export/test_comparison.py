"""A defect of the export, wherever it is, leaves no file."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from ptq_det.errors import InputError
from ptq_det.export import exporting
from ptq_det.export.exporting import export_onnx
from tests.export.test_exporting import packed


def broken(monkeypatch, name, change, precision="float32"):
    """Have every graph of a precision filled with one array changed, as a defect would."""
    real = exporting.fill

    def wrong(data, metadata, path, *told):
        filled = real(data, metadata, path, *told)
        if metadata["precision"] != precision:
            return filled
        model = onnx.load_from_string(filled)
        array = next(x for x in model.graph.initializer if x.name == name)
        values = numpy_helper.to_array(array)
        changed = change(values.copy()).astype(values.dtype)
        array.CopyFrom(numpy_helper.from_array(changed, name))
        return model.SerializeToString()

    monkeypatch.setattr(exporting, "fill", wrong)


@pytest.mark.parametrize("part", ["backbone.fpn_output2", "roi_heads.box_predictor.bbox_pred"])
def test_a_model_that_disagrees_is_not_left(part, file, tmp_path, monkeypatch):
    broken(monkeypatch, f"{part}.bias", lambda bias: bias + 0.3)
    (tmp_path / "m.onnx").write_text("before")
    with pytest.raises(InputError, match="disagrees with the packed one"):
        export_onnx(file, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "before"


def test_masks_are_compared_too(file, tmp_path, monkeypatch):
    broken(monkeypatch, "roi_heads.mask_head.predictor.bias", lambda bias: bias + 0.5)
    with pytest.raises(InputError, match="masks differ"):
        export_onnx(file, tmp_path / "m.onnx")


def test_heatmaps_are_compared_too(tmp_path, monkeypatch):
    file = packed("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", tmp_path / "m.safetensors")
    broken(monkeypatch, "roi_heads.keypoint_head.score_lowres.bias", lambda bias: bias + 0.5)
    with pytest.raises(InputError, match="heatmaps differ"):
        export_onnx(file, tmp_path / "m.onnx")


def without_filters(codes):
    codes[:4] = 0
    return codes


@pytest.mark.parametrize(
    "array",
    [
        "backbone.bottom_up.res3.0.conv2.codes",
        "proposal_generator.rpn_head.conv.codes",
        "proposal_generator.rpn_head.anchor_deltas.bias",
        "roi_heads.box_head.fc1.codes",
        "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.mask_head.mask_fcn1.codes",
        "roi_heads.mask_head.deconv.codes",
        "roi_heads.mask_head.predictor.bias",
    ],
)
def test_on_integers_every_layer_is_compared(array, file, tmp_path, monkeypatch):
    change = without_filters if array.endswith(".codes") else lambda bias: bias * 2 + 1
    broken(monkeypatch, array, change, "int8")
    layer = array.rpartition(".")[0].replace(".", r"\.")
    with pytest.raises(InputError, match=f"its layer {layer} is off by"):
        export_onnx(file, tmp_path / "m.onnx", int8=True)
    assert not (tmp_path / "m.onnx").exists()


def test_weights_of_8_bits_are_compared_without_saturating(file, tmp_path):
    export_onnx(file, tmp_path / "m.onnx", int8=True, vnni=True)
    assert (tmp_path / "m.onnx").exists()


def test_what_is_written_runs(file, tmp_path, monkeypatch):
    broken(
        monkeypatch, "roi_heads.box_predictor.bbox_pred.bias", lambda bias: bias * np.nan, "int8"
    )
    with pytest.raises(InputError, match=r"gives boxes that are no numbers"):
        export_onnx(file, tmp_path / "m.onnx", int8=True)
