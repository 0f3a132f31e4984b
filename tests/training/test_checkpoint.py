import importlib

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import save_file

from ptq_det import pack_model, ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel
from ptq_det.training import checkpoint
from ptq_det.training.checkpoint import load_weights, save_int8_weights


def test_int8_weights_come_back_to_half_a_step(tmp_path):
    weights = {
        "conv.weight": torch.randn(8, 4, 3, 3) * torch.logspace(-6, 3, 8).reshape(-1, 1, 1, 1),
        "zeros.weight": torch.zeros(2, 5),
        "conv.bias": torch.randn(8),
        "norm.num_batches_tracked": torch.tensor(7),
    }
    path = str(tmp_path / "w.safetensors")
    save_int8_weights(weights, path)
    loaded = load_weights(path)
    assert loaded.keys() == weights.keys()
    step = weights["conv.weight"].flatten(1).abs().amax(1) / 127
    error = (loaded["conv.weight"] - weights["conv.weight"]).flatten(1).abs().amax(1)
    assert (error <= 0.501 * step).all()
    for name in ("zeros.weight", "conv.bias", "norm.num_batches_tracked"):
        assert torch.equal(loaded[name], weights[name])


def test_a_model_loads_half_precision_safetensors(cfg, tmp_path):
    source, model = build_float_model(cfg), build_float_model(cfg)
    half = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    save_file(half, tmp_path / "w.safetensors")
    DetectionCheckpointer(model).load(str(tmp_path / "w.safetensors"))
    for name, value in model.state_dict().items():
        assert value.dtype == source.state_dict()[name].dtype
        torch.testing.assert_close(value, half[name].to(value.dtype))


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x80\x04 no safetensors")
    with pytest.raises(ValueError, match=r"w\.safetensors is not a readable safetensors file"):
        load_weights(str(path))


def test_pickles_are_still_read_by_detectron2(cfg, tmp_path):
    model = build_float_model(cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    other = build_float_model(cfg)
    DetectionCheckpointer(other).load(str(tmp_path / "w.pth"))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_a_packed_file_is_known_by_its_content(cfg, tmp_path):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").rename(tmp_path / "model_final.pth")
    other = build_float_model(cfg).eval()
    DetectionCheckpointer(other).load(str(tmp_path / "model_final.pth"))
    weights = PackedModel.read(tmp_path / "model_final.pth").state_dict()
    assert torch.equal(other.backbone.fpn_lateral2.weight, weights["backbone.fpn_lateral2.weight"])


def test_loading_the_module_again_does_not_recurse(cfg, tmp_path):
    for _ in range(2):
        importlib.reload(checkpoint).register_safetensors()
    model = build_float_model(cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    DetectionCheckpointer(build_float_model(cfg)).load(str(tmp_path / "w.pth"))


def test_a_norm_that_stayed_in_the_packed_file_counts_batches(cfg, tmp_path, monkeypatch):
    """As that of TridentNet's convolutions."""
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    apart = torch.nn.BatchNorm2d(4)
    torch.nn.init.normal_(apart.weight)
    folded, own = PackedModel.state_dict, {f"apart.{k}": v for k, v in apart.state_dict().items()}
    monkeypatch.setattr(PackedModel, "state_dict", lambda packed: folded(packed) | own)
    other = build_float_model(cfg).eval()
    other.apart = torch.nn.BatchNorm2d(4)
    DetectionCheckpointer(other).load(str(tmp_path / "m.safetensors"))
    assert torch.equal(other.apart.weight, apart.weight)
