"""Exported models on other runtimes, as rows of the benchmark: ONNX Runtime and OpenVINO."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from detectron2.structures.keypoints import heatmaps_to_keypoints
from torch import nn

from ...errors import InputError
from ...packing.packed_model import PackedModel

__all__ = ["Runtime", "runtimes"]


class _Network(nn.Module):
    """What the runtime does of it, so that it can be timed as parts of others are."""

    def __init__(self, predict: Callable[[np.ndarray], dict[str, np.ndarray]]):
        super().__init__()
        self._predict = predict

    def forward(self, picture: np.ndarray) -> dict[str, np.ndarray]:
        return self._predict(picture)


class Runtime(nn.Module):
    """An exported model in the place of a Detectron2 model, its masks pasted as there.

    Args:
        file: ONNX model, or OpenVINO's form of one.
        predict: gives the outputs by name for a picture, uint8 ``(height, width, 3)``.
        body: gives those of the layers before the heads, kind by kind of all levels.
    """

    def __init__(
        self,
        file: str,
        predict: Callable[[np.ndarray], dict[str, np.ndarray]],
        body: Callable[[np.ndarray], list[np.ndarray]],
    ):
        super().__init__()
        self.body = body
        self.file, self.network = file, _Network(predict)

    def forward(self, batch: list[dict]) -> list[dict]:
        """As Detectron2's models in evaluation mode."""
        return [{"instances": self._one(sample)} for sample in batch]

    @staticmethod
    def picture_of(sample: dict) -> np.ndarray:
        """The picture as the exported model takes it."""
        return sample["image"].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()

    def _one(self, sample: dict) -> Instances:
        picture = self.picture_of(sample)
        found = {name: torch.from_numpy(x) for name, x in self.network(picture).items()}
        instances = Instances(picture.shape[:2])
        instances.pred_boxes = Boxes(found["boxes"])
        instances.scores, instances.pred_classes = found["scores"], found["classes"].long()
        if "masks" in found:
            instances.pred_masks = found["masks"][:, None]
        if "heatmaps" in found:
            points = heatmaps_to_keypoints(found["heatmaps"], found["boxes"])
            instances.pred_keypoints = points[:, :, [0, 1, 3]]
        size = [
            sample.get(key, side)
            for key, side in zip(("height", "width"), picture.shape[:2], strict=True)
        ]
        return detector_postprocess(instances, *size)


def runtimes(
    packed: str, pictures: Iterable[np.ndarray], folder: str
) -> tuple[dict[str, Runtime], dict[str, str]]:
    """The packed file on each runtime that is installed, and why others are left out.

    Args:
        packed: calibrated packed file.
        pictures: some dozens, uint8 in the model's channel order, by which NNCF finds ranges of its
            own.
        folder: for the exported models, which it needs as long as these run.
    """
    folder = Path(folder)
    models: dict[str, Runtime] = {}
    left_out: dict[str, str] = {}
    files: dict[str, tuple[str, str, list[str]]] = {}  # a model, its body, the body's outputs
    for name, int8 in (("float", False), ("int8", True)):
        file, body = str(folder / f"{name}.onnx"), str(folder / f"{name}_body.onnx")
        try:
            from ...export import export_onnx  # which needs the extra onnx

            export_onnx(packed, file, int8)
            files[name] = file, body, _extract_body(packed, file, body, int8)
        except (ImportError, InputError) as error:
            left_out[f"onnx {name}"] = str(error)
    for name, (file, body, outputs) in files.items():
        models[f"onnxruntime {name}"] = _runtime(_onnxruntime, file, body, outputs)
    if importlib.util.find_spec("openvino") is None:
        left_out["openvino"] = "pip install openvino nncf"
        return models, left_out
    for name, (file, body, outputs) in files.items():
        models[f"openvino {name}"] = _runtime(_openvino, file, body, outputs)
    if "float" in files and importlib.util.find_spec("nncf") is not None:
        file, body, outputs = files["float"]
        pictures = list(pictures)
        quantized = [
            _quantized_by_nncf(each, pictures, str(folder / name))
            for each, name in ((file, "nncf.xml"), (body, "nncf_body.xml"))
        ]
        models["openvino nncf"] = _runtime(_openvino, *quantized, outputs)
    else:
        left_out["openvino nncf"] = "pip install nncf"
    return models, left_out


_LAST = (  # layers that give a level's values, by kind
    ("proposal_generator.rpn_head.objectness_logits", "head.cls_score"),
    ("proposal_generator.rpn_head.anchor_deltas", "head.bbox_pred"),
)


def _extract_body(packed: str, file: str, target: str, int8: bool) -> list[str]:
    """Write the body of an exported model; the names of its outputs, kind by kind of all levels."""
    from onnx.utils import extract_model

    from ...export.model import build_graph

    computed: list = []
    build_graph(PackedModel.read(packed), int8, computed=computed)  # values are called as in `file`
    outputs = [each.result.name for kind in _LAST for each in computed if each.layer in kind]
    extract_model(file, target, ["picture"], outputs, check_model=False)
    return outputs


def _runtime(load: Callable, file: str, body: str, outputs: list[str]) -> Runtime:
    run = load(body)

    def run_body(picture: np.ndarray) -> list[np.ndarray]:
        found = run(picture)
        return [found[name] for name in outputs]

    return Runtime(file, load(file), run_body)


def _onnxruntime(file: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda picture: dict(zip(names, session.run(None, {"picture": picture}), strict=True))


def _openvino(file: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",  # where it has no integers, as all others here
    }
    model = openvino.Core().compile_model(file, "CPU", settings)

    def predict(picture):
        found = model({"picture": picture})
        return {name: np.array(found[o]) for o in model.outputs for name in o.get_names()}

    return predict


# What NNCF is to quantize; left to itself it takes what boxes are sorted by too, and no mask comes
# out.
_LAYERS = {"Convolution", "ConvolutionBackpropData", "MatMul"}
_ENDS = {"Constant", "Parameter", "Result"}


def _quantized_by_nncf(file: str, pictures: list[np.ndarray], target: str) -> str:
    import nncf
    import openvino

    model = openvino.Core().read_model(file)
    dataset = nncf.Dataset(pictures, lambda picture: {"picture": picture})
    others = {op.get_type_name() for op in model.get_ops()} - _LAYERS - _ENDS
    scope = nncf.IgnoredScope(types=sorted(others), validate=False)
    quantized = nncf.quantize(model, dataset, subset_size=len(pictures), ignored_scope=scope)
    openvino.save_model(quantized, target)
    return target
