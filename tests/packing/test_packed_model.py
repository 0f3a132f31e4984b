import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor

from ptq_det import load_packed, pack_model, packed_config, ternarize
from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing import PackedFileError
from ptq_det.packing.container import Container
from ptq_det.packing.packed_model import PackedModel
from ptq_det.ternary.ternarize import ternary_layers
from tests.packing import fixtures  # noqa: F401  (the backbone of a file is registered)

FILES = Path(__file__).parent / "files"


@pytest.fixture
def file(model, cfg, tmp_path):
    pack_model(model, cfg, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_loaded_model_computes_the_same(model, file, picture, assert_same_function, device):
    loaded = load_packed(file, device)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert not ternary_layers(loaded)
    assert_same_function(model, loaded, picture)
    assert loaded.backbone.bottom_up.stem.conv1.norm is None
    instances = loaded(picture)[0]["instances"]
    assert instances.image_size == (96, 80)


def test_codes_are_the_model_s(model, file, device):
    packed = PackedModel.read(file)
    for name, layer in ternary_layers(model).items():
        codes, _ = layer.codes_and_scale()
        assert torch.equal(
            torch.from_numpy(packed.layers[name].values).flatten(1), codes.cpu().to(torch.int8)
        )


@pytest.mark.parametrize("norm", ["BN", "GN", ""])
def test_other_norms(norm, cfg, picture, tmp_path, randomize_norms, assert_same_function, device):
    cfg.MODEL.RESNETS.NORM = "BN" if norm == "BN" else "FrozenBN"
    cfg.MODEL.FPN.NORM = norm
    cfg.MODEL.FPN.OUT_CHANNELS = 32  # as many as a group norm has groups
    torch.manual_seed(0)
    model = build_float_model(cfg)
    randomize_norms(model)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    assert_same_function(model, load_packed(tmp_path / "m.safetensors", device), picture)


def test_two_scales_a_layer(cfg, picture, tmp_path, randomize_norms, assert_same_function, device):
    cfg.TERNARY.QUANTIZER = "TTQ"
    model = build_float_model(cfg)
    randomize_norms(model)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    assert_same_function(model, load_packed(tmp_path / "m.safetensors", device), picture)


def test_quantized_activations(cfg, picture, tmp_path, randomize_norms, device):
    cfg.TERNARY.ACTIVATION_BITS = 3
    model = build_float_model(cfg)
    randomize_norms(model)
    ternarize(model, cfg)
    for layer in ternary_layers(model).values():
        if hasattr(layer, "pact"):
            layer.pact.clip.data.fill_(2.0)
    path = str(tmp_path / "m.safetensors")
    pack_model(model.eval(), cfg, path)
    x = torch.randn(3, 16, 8, 8, device=device) * 3
    name = "roi_heads.mask_head.deconv"
    packed = PackedModel.read(path)
    assert (packed.layers[name].activation_bits, packed.layers[name].clip) == (3, 2.0)
    loaded = load_packed(path, device)
    other = build_float_model(cfg)
    ternarize(other, cfg)
    DetectionCheckpointer(other.eval()).load(path)
    expected = model.get_submodule(name)(x)
    for found in (loaded, other):
        torch.testing.assert_close(found.get_submodule(name)(x), expected, rtol=0.01, atol=1e-3)
        plain = found.get_submodule(name)
        plain._forward_pre_hooks.clear()
        assert float((plain(x) - expected).abs().max()) > 0.01


def test_a_stock_model_loads_the_state_dict(
    model, file, cfg, picture, assert_same_function, device
):
    stock = build_float_model(cfg).eval()
    missing, unexpected = stock.load_state_dict(PackedModel.read(file).state_dict(), strict=False)
    assert not missing and not unexpected
    assert_same_function(load_packed(file, device), stock, picture, tolerance=1e-5)


def test_weights_by_checkpointer_and_predictor(
    model, file, cfg, picture, assert_same_function, device
):
    ternary = build_float_model(cfg).eval()
    ternarize(ternary, cfg)
    DetectionCheckpointer(ternary).load(str(file))
    assert_same_function(load_packed(file, device), ternary, picture, tolerance=1e-5)
    predictor = DefaultPredictor(packed_config(file))  # on a GPU where there is one
    assert_same_function(load_packed(file, device), predictor.model, picture, tolerance=1e-5)
    cfg.MODEL.WEIGHTS = str(file)
    cfg.MODEL.ROI_HEADS.NAME = "TernaryStandardROIHeads"
    assert_same_function(
        load_packed(file, device), DefaultPredictor(cfg).model, picture, tolerance=1e-5
    )


def test_training_takes_the_weights_for_latent_ones(file, cfg, device):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    DetectionCheckpointer(model).load(str(file))
    layers = ternary_layers(model)
    assert layers and all(layer.ternary.loaded for layer in layers.values())
    weights = PackedModel.read(file).state_dict()
    assert torch.equal(
        layers["roi_heads.box_head.fc1"].weight.cpu(), weights["roi_heads.box_head.fc1.weight"]
    )


def test_another_config_is_refused(file, cfg):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 9
    with pytest.raises(InputError, match=r"packed model of another config.*box_predictor"):
        DetectionCheckpointer(build_float_model(cfg).eval()).load(str(file))


def test_the_file_tells_nothing_of_its_place(model, cfg, tmp_path):
    cfg.MODEL.WEIGHTS = "/secret/weights.pth"
    cfg.OUTPUT_DIR = "/secret/output"
    pack_model(model, cfg, tmp_path / "m.safetensors")
    assert b"secret" not in (tmp_path / "m.safetensors").read_bytes()
    assert cfg.MODEL.WEIGHTS == "/secret/weights.pth"


def test_a_config_with_other_nodes(model, cfg, tmp_path):
    cfg.MODEL.PLUGIN = type(cfg)({"KEY": 1})
    pack_model(model, cfg, tmp_path / "m.safetensors")
    assert "PLUGIN" not in packed_config(tmp_path / "m.safetensors").MODEL
    mine = get_cfg()
    mine.MODEL.PLUGIN = type(cfg)({"KEY": 0})
    assert packed_config(tmp_path / "m.safetensors", mine).MODEL.PLUGIN.KEY == 1
    assert mine.MODEL.PLUGIN.KEY == 0
    load_packed(tmp_path / "m.safetensors", cfg=mine)


def test_a_model_that_its_config_does_not_build_is_not_written(model, cfg, tmp_path):
    cfg.MODEL.FPN.OUT_CHANNELS = 24
    with pytest.raises(PackedFileError, match="has the shape"):
        pack_model(model, cfg, tmp_path / "m.safetensors")
    assert not list(tmp_path.glob("m.*"))


def test_a_plain_model_is_refused(cfg, tmp_path):
    with pytest.raises(InputError, match="no ternary layers"):
        pack_model(build_float_model(cfg), cfg, tmp_path / "m.safetensors")


def test_the_same_model_gives_the_same_bytes(model, file, cfg, tmp_path, device):
    pack_model(model, cfg, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    PackedModel.read(file).write(tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == file.read_bytes()


DAMAGE = {
    "layer of the config lacks": lambda c, layers: layers.pop("roi_heads.box_head.fc1"),
    "layer too many": lambda c, layers: layers.update(x=layers["roi_heads.box_head.fc1"]),
    "another norm": lambda c, layers: layers["backbone.bottom_up.stem.conv1"].update(norm="x.y"),
    "no norm": lambda c, layers: [
        layers["backbone.bottom_up.stem.conv1"].pop(k) for k in ("norm", "norm_eps")
    ],
    "other shape": lambda c, layers: layers["roi_heads.box_head.fc1"].update(shape=[32, 392]),
    "field": lambda c, layers: layers.update({"roi_heads.box_head.fc1": 3}),
    "config": lambda c, layers: c.metadata.update(config="MODEL: ["),
    "other config": lambda c, layers: c.metadata.update(
        config=c.metadata["config"].replace('"FC_DIM":16', '"FC_DIM":24')
    ),
    "unknown model": lambda c, layers: c.metadata.update(
        config=c.metadata["config"].replace("GeneralizedRCNN", "NoSuchThing")
    ),
    "unknown architecture": lambda c, layers: c.metadata.update(architecture='["onnx"]'),
    "no layers": lambda c, layers: c.metadata.pop("layers"),
    "no JSON": lambda c, layers: c.metadata.update(classes="["),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_contents_that_contradict_each_other_are_refused(name, file):
    container = Container.read(file)
    layers = json.loads(container.metadata["layers"])
    DAMAGE[name](container, layers)
    if "layers" in container.metadata:
        container.metadata["layers"] = json.dumps(layers)
    container.write(file)
    with pytest.raises(PackedFileError, match=r"model\.safetensors"):
        load_packed(file)


@pytest.mark.parametrize("classes", [["a"], ["a"] * 7])
def test_names_of_another_number_of_classes_are_refused(classes, file):
    container = Container.read(file)
    assert len(PackedModel.read(file).classes) == 6
    container.metadata["classes"] = json.dumps(classes)
    container.write(file)
    for weights in (True, False):
        with pytest.raises(PackedFileError, match=f"names {len(classes)} classes, .* has 6"):
            PackedModel.read(file, weights)
    container.metadata["classes"] = "[]"
    container.write(file)
    assert PackedModel.read(file).classes == []


def test_names_of_another_number_in_a_network_of_torchvision(file):
    container = Container.read(file)
    container.metadata |= {"architecture": '["torchvision", "resnet18", 6]', "classes": '["a"]'}
    container.write(file)
    with pytest.raises(PackedFileError, match="names 1 classes, and its model has 6"):
        PackedModel.read(file, weights=False)


def test_packing_leaves_the_model_s_mode(model, cfg, tmp_path, device):
    for layer in ternary_layers(model).values():
        layer.snap()
    pack_model(model, cfg, tmp_path / "evaluating.safetensors")
    pack_model(model.train(), cfg, tmp_path / "training.safetensors")
    assert model.training
    first, second = (tmp_path / f"{mode}.safetensors" for mode in ("evaluating", "training"))
    assert first.read_bytes() == second.read_bytes()


def test_the_config_is_read_without_the_weights(file):
    packed = PackedModel.read(file, weights=False)
    assert not packed.layers and not packed.others.shapes()
    assert packed.cfg().MODEL.META_ARCHITECTURE == "GeneralizedRCNN"


def _fields(content, **changes):
    """Change what the header says of the parameter."""
    layers = json.loads(content.metadata["layers"])
    layers["backbone.position"] |= changes
    content.metadata["layers"] = json.dumps(layers)


FORGED = {
    "another shape": (
        lambda c: _fields(c, shape=[16, 1024]),
        r"'backbone.position' has the shape \(16, 1024\) in the file and \(1, 16, 32, 32\)",
    ),
    "no shape": (lambda c: _fields(c, shape=[0]), "'backbone.position': it has a wrong shape"),
    "no parameter": (lambda c: _fields(c, parameter=1.5), "other fields than a parameter has"),
    "another kind": (lambda c: _fields(c, kind="ternary"), "other fields than a parameter has"),
    "a bias": (
        lambda c: c.tensors.update({"backbone.position.bias": np.zeros(16, np.float16)}),
        "other tensors than a parameter has",
    ),
    "twice": (
        lambda c: c.tensors.update({"backbone.position": np.zeros((1, 16, 32, 32), np.float16)}),
        "it has 'backbone.position' twice",
    ),
    "no scale": (lambda c: c.tensors.pop("backbone.position.scale"), "no scale of its shape"),
    "codes of another size": (
        lambda c: c.tensors.update({"backbone.position.codes": np.arange(9, dtype=np.uint8)}),
        "layer 'backbone.position': ",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_parameters_are_refused(name, tmp_path):
    content = Container.read(FILES / "version_3.safetensors")
    forge, message = FORGED[name]
    forge(content)
    content.write(tmp_path / "m.safetensors")
    with pytest.raises(PackedFileError, match=message):
        load_packed(tmp_path / "m.safetensors", "cpu")
