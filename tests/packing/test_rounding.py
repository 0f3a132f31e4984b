import torch

from ptq_det import load_packed, pack_model
from ptq_det.packing.rounding import round_to_packed
from ptq_det.ternary.ternarize import ternary_layers


def test_rounding_makes_packing_exact(model, cfg, picture, tmp_path, assert_same_function, device):
    for layer in ternary_layers(model).values():
        layer.snap()
    before = {name: layer.codes_and_scale()[0] for name, layer in ternary_layers(model).items()}
    round_to_packed(model, "int8")
    for name, layer in ternary_layers(model).items():
        assert torch.equal(layer.codes_and_scale()[0], before[name])
    pack_model(model, cfg, tmp_path / "m.safetensors")
    assert_same_function(
        model, load_packed(tmp_path / "m.safetensors", device), picture, tolerance=1e-5
    )
