import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ptq_det import pack_model, ternarize
from ptq_det.errors import InputError
from ptq_det.export.exporting import export_onnx
from ptq_det.inference import calibrate
from ptq_det.inference.calibration import take_any_score
from ptq_det.modeling.meta_arch import build_float_model
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
    model = build_float_model(cfg)
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


def test_a_layer_with_another_activation_is_refused(file, tmp_path, monkeypatch):
    real = PackedModel.build

    def other(self, device=None):
        model = real(self, device)
        model.backbone.fpn_output2.activation = torch.nn.ReLU6()
        return model

    monkeypatch.setattr(PackedModel, "build", other)
    with pytest.raises(InputError, match=r"backbone\.fpn_output2 cannot be exported"):
        export_onnx(file, tmp_path / "m.onnx")
