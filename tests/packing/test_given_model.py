"""Files of models that no YAML describes: the reader gives the model, and a file runs no code."""

import copy
import json
import time
from collections import OrderedDict

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, instantiate
from detectron2.data import MetadataCatalog
from omegaconf import OmegaConf
from torch import nn

from ptq_det import load_packed, pack_model, packed_config, ternarize
from ptq_det.commands.inspection import describe_file
from ptq_det.errors import InputError
from ptq_det.lazy import ternary
from ptq_det.packing import PackedFileError
from ptq_det.packing.container import Container
from ptq_det.packing.given_model import emptied_copy, given_model
from ptq_det.packing.packed_model import PackedModel
from ptq_det.ternary.layers import TernaryLayer
from ptq_det.ternary.ternarize import ternary_layers
from tests.lazy_models import narrow_new_baseline, narrow_rcnn, narrow_vitdet

PICTURE = [{"image": torch.randint(0, 256, (3, 64, 64)), "height": 64, "width": 64}]
SETTINGS = {"sparsity": 0.6, "require_trained": False}


def whole(model, **others):
    """A lazy config."""
    return OmegaConf.create({"model": model, **others}, flags={"allow_objects": True})


@pytest.fixture
def packed(randomize_norms, tmp_path):
    """The file of a narrow Mask R-CNN, its model and its config."""
    cfg = whole(LazyCall(ternary)(model=narrow_rcnn(), **SETTINGS))
    model = instantiate(cfg.model).eval()
    randomize_norms(model)
    pack_model(model, cfg, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors", model, cfg


@torch.no_grad()
def features(model):
    found = model.backbone(model.preprocess_image(PICTURE).tensor)
    return torch.cat([found[name].flatten() for name in sorted(found)])


def assert_same(first, second, tolerance=2e-2):
    expected = features(first)
    assert float((features(second) - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize(
    "given", ["ternary", "plain", "node of the ternary", "node", "in training"]
)
def test_the_model_that_is_given_is_copied_and_filled(given, packed):
    path, model, cfg = packed
    own = {
        "ternary": lambda: instantiate(cfg.model),
        "plain": lambda: instantiate(narrow_rcnn()),
        "node of the ternary": lambda: cfg.model,
        "node": narrow_rcnn,
        "in training": lambda: instantiate(cfg.model).train(),
    }[given]()
    before = copy.deepcopy(own)
    loaded = load_packed(path, model=own)
    assert_same(model, loaded)
    assert not loaded.training and not any(isinstance(m, TernaryLayer) for m in loaded.modules())
    assert set(loaded(PICTURE)[0]["instances"].get_fields()) >= {"pred_boxes", "pred_masks"}
    if isinstance(own, nn.Module):
        assert len(ternary_layers(own)) == len(ternary_layers(before))
        assert all(
            torch.equal(a, b) for a, b in zip(own.parameters(), before.parameters(), strict=True)
        )


@pytest.mark.parametrize("make", [narrow_new_baseline, narrow_vitdet])
def test_other_architectures(make, randomize_norms, tmp_path):
    cfg = whole(make(), ternary=SETTINGS)
    model = instantiate(cfg.model).eval()
    randomize_norms(model)
    ternarize(model, cfg.ternary)
    pack_model(model, cfg, tmp_path / "m.safetensors")
    assert_same(model, load_packed(tmp_path / "m.safetensors", model=cfg.model))


def test_a_model_of_code_alone(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(16, 4))  # fmt: skip
    plain, settings = copy.deepcopy(model), {**SETTINGS, "skip": ["0"], "float_layers": "float16"}
    ternarize(model, settings)
    pack_model(model.eval(), settings, tmp_path / "m.safetensors")
    x = torch.rand(1, 3, 8, 8)
    loaded = load_packed(tmp_path / "m.safetensors", model=plain)
    torch.testing.assert_close(loaded(x), model(x), rtol=2e-2, atol=1e-3)
    assert PackedModel.read(tmp_path / "m.safetensors").layers["0"].kind == "float16"


def test_without_a_model_the_message_says_what_to_give(packed):
    path, _, _ = packed
    with pytest.raises(PackedFileError, match=r"GeneralizedRCNN\).*model=instantiate\(cfg.model\)"):
        load_packed(path)
    with pytest.raises(InputError, match="has no config of Detectron2; its model"):
        packed_config(path)
    with pytest.raises(InputError, match="model is dict; give a module"):
        load_packed(path, model={"a": 1})
    with pytest.raises(InputError, match="makes OrderedDict, which is no module"):
        load_packed(path, model=LazyCall(OrderedDict)(a=1))
    with pytest.raises(InputError, match="cannot be built \\(TypeError"):
        load_packed(path, model=LazyCall(nn.Conv2d)(a=1))


def test_what_is_in_the_file_can_be_looked_at_without_it(packed, randomize_norms):
    path, model, _ = packed
    assert "architecture: module detectron2.modeling.GeneralizedRCNN" in describe_file(path)
    stock = instantiate(narrow_rcnn())
    stock.load_state_dict(PackedModel.read(path).state_dict())
    assert_same(model, stock.eval())
    again = path.with_name("again.safetensors")
    PackedModel.read(path).write(again)
    assert again.read_bytes() == path.read_bytes()


def test_the_checkpointer_loads_it(packed):
    path, model, cfg = packed
    other = instantiate(cfg.model).eval()
    DetectionCheckpointer(other).load(str(path))
    assert_same(model, other)


def test_another_model_is_refused(packed):
    path, _, _ = packed
    other = narrow_rcnn()
    other.roi_heads.box_head.fc_dims = [16, 24]
    with pytest.raises(
        PackedFileError, match=r"box_head.fc2' has the shape \[?\(?16, 16.*\(24, 16"
    ):
        load_packed(path, model=other)
    with pytest.raises(PackedFileError, match="has the shape"):
        load_packed(path, model=nn.Linear(3, 3))


def test_a_config_that_builds_another_model_is_not_packed(packed, tmp_path):
    _, model, cfg = packed
    cfg.model.model.roi_heads.box_head.fc_dims = [16, 24]
    with pytest.raises(InputError, match="has the shape"):
        pack_model(model, cfg, tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()


def test_class_names_are_those_of_the_training_set(packed, tmp_path):
    _, model, cfg = packed
    MetadataCatalog.get("of_lazy").thing_classes = ["a", "b"]
    data = {"train": {"dataset": {"names": "of_lazy"}}}
    path = tmp_path / "named.safetensors"
    pack_model(model, whole(cfg.model, dataloader=data), path)
    assert PackedModel.read(path).classes == ["a", "b"]
    other = narrow_rcnn()
    other.roi_heads.num_classes = 3
    with pytest.raises(PackedFileError, match="names 2 classes, and its model has 3"):
        load_packed(path, model=other)


def forge(path, **metadata):
    content = Container.read(path)
    content.metadata |= metadata
    content.write(path)


def test_nothing_that_a_file_names_is_imported(packed, tmp_path, monkeypatch):
    path, model, cfg = packed
    (tmp_path / "trap_of_a_file.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    forge(path, config=json.dumps({"_target_": "trap_of_a_file.Model"}))
    with pytest.raises(PackedFileError, match=r"its model \(trap_of_a_file.Model\)"):
        load_packed(path)
    assert "trap_of_a_file" in describe_file(path)
    assert_same(model, load_packed(path, model=cfg.model))


def test_forged_files_are_refused(packed):
    path, _, cfg = packed
    forge(path, config='{"a": "/etc/passwd"}')
    with pytest.raises(PackedFileError, match="its config cannot be read"):
        load_packed(path, model=cfg.model)
    layers = json.loads(Container.read(path).metadata["layers"])
    name = "roi_heads.box_head.fc1"
    layers |= {f"{name}{i}": {**layers[name], "shape": [1 << 15, 1 << 14]} for i in range(3)}
    forge(path, config="{}", layers=json.dumps(layers))
    with pytest.raises(PackedFileError, match=r"its layers have 16\d+ weights"):
        PackedModel.read(path)


def test_much_claimed_in_few_bytes_is_refused_at_once(packed):
    """Where there is no model, which would tell that it is not the file's."""
    path, _, _ = packed
    layers = json.loads(Container.read(path).metadata["layers"])
    layers["p"] = {"shape": [1 << 15, 1 << 14], "parameter": True}
    forge(path, layers=json.dumps(layers))
    start = time.perf_counter()
    with pytest.raises(PackedFileError, match=r"weights in \d+ bytes"):
        PackedModel.read(path)
    assert time.perf_counter() - start < 2


def test_a_copy_is_emptied_of_what_a_file_holds_alone():
    model = instantiate(narrow_rcnn())
    emptied = emptied_copy(model, "meta")
    assert {p.device.type for p in emptied.state_dict().values()} == {"meta"}
    assert [tuple(p.shape) for p in emptied.parameters()] == [
        tuple(p.shape) for p in model.parameters()
    ]
    copied = emptied_copy(model, "cpu")
    anchors = [next(m.proposal_generator.anchor_generator.buffers()) for m in (model, copied)]
    assert torch.equal(*anchors) and torch.equal(model.pixel_mean, copied.pixel_mean)
    own = {id(p) for p in model.parameters()}
    assert not own & {id(p) for p in copied.parameters()}


def test_weights_are_not_drawn_for_a_node():
    state = torch.get_rng_state()
    assert isinstance(given_model(narrow_rcnn()), nn.Module)
    assert torch.equal(torch.get_rng_state(), state)
