import numpy as np
import onnx
import pytest
import torch
from detectron2.modeling import build_model
from onnx import numpy_helper

from ptq_det import pack_model, ternarize
from ptq_det.errors import InputError
from ptq_det.export import exporting
from ptq_det.export.exporting import export_onnx
from ptq_det.inference import calibrate
from ptq_det.inference.calibration import take_any_score
from ptq_det.packing.packed_model import PackedModel
from tests.modeling.test_architectures import PICTURE, narrow
from tests.packing.conftest import _randomize_norms

KNOWN = {
    "COCO-Detection/faster_rcnn_R_50_FPN_1x": (True, True),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x": (True, True),
    "COCO-Detection/retinanet_R_50_FPN_1x": (True, True),
    "Misc/cascade_mask_rcnn_R_50_FPN_1x": (True, True),
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x": (True, True),
}
UNKNOWN = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x": "backbone is a ResNet; the export knows FPN",
    "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x": "this is a PanopticFPN",
    "COCO-Detection/rpn_R_50_FPN_1x": "this is a ProposalNetwork",
}


def packed(name, path, calibrated=True):
    cfg = narrow(name)
    model = build_model(cfg)
    _randomize_norms(model)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, path)
    if calibrated:
        content = PackedModel.read(path)
        built = content.build("cpu")
        take_any_score(built)
        content.ranges = calibrate(built, [[PICTURE]])
        content.write(path)
    return path


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", KNOWN)
def test_known_architectures_are_exported_and_agree(name, int8, tmp_path):
    """The export compares them itself, on noise with detections of any score."""
    path = packed(name, tmp_path / "m.safetensors")
    export_onnx(path, tmp_path / "m.onnx", int8)
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert model.opset_import[0].version >= 17
    kinds = {node.op_type for node in model.graph.node}
    assert ("QuantizeLinear" in kinds) is int8
    assert not kinds & {"If", "Loop"}  # which some runtimes and compressors end at


@pytest.mark.parametrize("name", UNKNOWN)
def test_others_are_refused(name, tmp_path):
    path = packed(name, tmp_path / "m.safetensors", calibrated=False)
    with pytest.raises(InputError, match=UNKNOWN[name]):
        export_onnx(path, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_ternary_codes_are_the_weights_of_the_file(file, tmp_path):
    export_onnx(file, tmp_path / "m.onnx", int8=True)
    model = onnx.load(str(tmp_path / "m.onnx"))
    arrays = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    layers = PackedModel.read(file).layers
    checked = 0
    for name, layer in layers.items():
        if layer.kind == "ternary" and f"{name}.codes" in arrays and name.endswith("conv2"):
            sign = np.where(layer.scale[0] < 0, -1, 1).reshape(-1, 1, 1, 1)
            assert (arrays[f"{name}.codes"] == layer.values * sign).all()
            checked += 1
    assert checked >= 10


def test_a_fixed_size(file, tmp_path):
    export_onnx(file, tmp_path / "m.onnx", size=(96, 128))
    (picture,) = onnx.load(str(tmp_path / "m.onnx")).graph.input
    assert [d.dim_value for d in picture.type.tensor_type.shape.dim] == [96, 128, 3]


def test_integers_need_a_calibration(tmp_path):
    path = packed("COCO-Detection/faster_rcnn_R_50_FPN_1x", tmp_path / "m.safetensors", False)
    with pytest.raises(InputError, match=r"not calibrated; tools/pack\.py FILE --calibrate"):
        export_onnx(path, tmp_path / "m.onnx", int8=True)


def test_a_calibration_of_an_earlier_release_is_told(file, tmp_path):
    content = PackedModel.read(file)
    content.ranges = {k: v for k, v in content.ranges.items() if "fpn_lateral" not in k}
    content.write(file)
    with pytest.raises(InputError, match=r"no range of 'backbone\.fpn_lateral.*calibrate it w"):
        export_onnx(file, tmp_path / "m.onnx", int8=True)


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


def test_a_layer_with_another_activation_is_refused(file, tmp_path, monkeypatch):
    real = PackedModel.build

    def other(self, device=None):
        model = real(self, device)
        model.backbone.fpn_output2.activation = torch.nn.ReLU6()
        return model

    monkeypatch.setattr(PackedModel, "build", other)
    with pytest.raises(InputError, match=r"backbone\.fpn_output2 cannot be exported"):
        export_onnx(file, tmp_path / "m.onnx")
