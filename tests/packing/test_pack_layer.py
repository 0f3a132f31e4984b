import numpy as np
import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from ptq_det.packing.other_tensors import pack_others
from ptq_det.packing.pack_layer import first_names, pack_layer, pack_layers
from ptq_det.packing.packed_layer import PackedLayer
from ptq_det.ternary.ternarize import ternarize


def ternary(module, cfg, quantizer="PTQ"):
    cfg.TERNARY.QUANTIZER = quantizer
    holder = nn.Sequential(module)
    ternarize(holder, cfg)
    return holder[0].eval().to(cfg.MODEL.DEVICE)


def through_file(packed):
    return PackedLayer.from_file(packed.to_metadata(), packed.to_tensors())


LAYERS = {
    "convolution": lambda: nn.Conv2d(6, 10, 3),
    "grouped": lambda: nn.Conv2d(6, 12, 3, groups=3),
    "linear": lambda: nn.Linear(40, 7),
    "transposed": lambda: nn.ConvTranspose2d(6, 10, 2),
    "grouped transposed": lambda: nn.ConvTranspose2d(6, 8, 2, groups=2),
}


@pytest.mark.parametrize("quantizer", ["PTQ", "TWN", "TTQ"])
@pytest.mark.parametrize("name", LAYERS)
def test_ternary_weights_come_back(name, quantizer, cfg, device):
    layer = ternary(LAYERS[name](), cfg, quantizer)
    packed = through_file(pack_layer(layer, "int8", None, None))
    codes, value = (each.cpu() for each in layer.codes_and_value())
    assert torch.equal(torch.from_numpy(packed.weight()).sign().to(torch.int8), codes)
    torch.testing.assert_close(torch.from_numpy(packed.weight()), value, rtol=2**-10, atol=0)
    torch.testing.assert_close(
        torch.from_numpy(packed.float_bias()), layer.bias.detach().cpu(), rtol=2**-10, atol=1e-4
    )


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_weights_of_more_levels_come_back(name, bits, cfg, device):
    cfg.TERNARY.BITS, cfg.TERNARY.FREEZE_START = bits, 1.0
    layer = ternary(LAYERS[name](), cfg, "SQuantizer")
    packed = through_file(pack_layer(layer, "int8", None, None))
    codes, value = (each.cpu() for each in layer.codes_and_value())
    assert packed.kind == "quantized" and packed.offset > 1
    assert np.abs(packed.values).max() == 2 ** (bits - 1) == codes.abs().max()
    torch.testing.assert_close(torch.from_numpy(packed.weight()), value, rtol=2**-10, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_float_layers_in_int8_are_half_a_step_away(name, device):
    layer = LAYERS[name]().to(device)
    packed = through_file(pack_layer(layer, "int8", None, None))
    dims = [d for d in range(layer.weight.dim()) if d != (1 if "transposed" in name else 0)]
    if name == "grouped transposed":
        dims = [1, 2, 3]  # a filter is in one group; the bound over all of them is looser
        dims = [0, 1, 2, 3]
    weight = layer.weight.detach().cpu()
    step = weight.abs().amax(dims, keepdim=True) / 127
    assert ((torch.from_numpy(packed.weight()) - weight).abs() <= 0.51 * step).all()


def test_float16_layers_keep_eleven_bits(device):
    layer = nn.Linear(40, 7, device=device)
    packed = through_file(pack_layer(layer, "float16", None, None))
    torch.testing.assert_close(
        torch.from_numpy(packed.weight()), layer.weight.detach().cpu(), rtol=2**-10, atol=1e-5
    )


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, nn.BatchNorm2d])
@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_norm_is_the_same_function(norm, bias, cfg, randomize_norms, device):
    layer = ternary(Conv2d(5, 8, 3, bias=bias, norm=norm(8)), cfg).eval()
    randomize_norms(layer)
    packed = through_file(pack_layer(layer, "int8", "conv.norm", layer.norm))
    x = torch.randn(2, 5, 9, 9)
    folded = torch.nn.functional.conv2d(
        x, torch.from_numpy(packed.weight()), torch.from_numpy(packed.float_bias())
    )
    torch.testing.assert_close(folded, layer(x.to(device)).cpu(), rtol=5e-3, atol=5e-3)
    assert (packed.norm, packed.norm_eps) == ("conv.norm", 1e-5)


def test_values_beyond_half_precision_are_stored_in_single(cfg, device):
    layer = ternary(nn.Linear(30, 4), cfg)
    with torch.no_grad():
        layer.weight[0] *= 1e7
        layer.bias[1] = 3e-9
        layer.bias[0] = 5e-9
        layer.bias[2:] = 0
    packed = through_file(pack_layer(layer, "int8", None, None))
    torch.testing.assert_close(
        torch.from_numpy(packed.weight()), layer.codes_and_value()[1].cpu(), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(
        torch.from_numpy(packed.float_bias()), layer.bias.detach().cpu(), rtol=1e-3, atol=0
    )
    assert packed.scale.dtype == packed.bias.dtype == np.float32


def test_a_layer_under_two_names_is_packed_once(cfg):
    cfg.TERNARY.SKIP = ["!*"]
    shared = nn.Linear(6, 6)
    model = nn.ModuleDict({"a": nn.Sequential(shared, nn.LayerNorm(6)), "b": shared})
    ternarize(model, cfg)
    layers = pack_layers(model.eval(), "int8")
    assert set(layers) == {"a.0"}
    assert set(pack_others(model, layers, "int8").shapes()) == {"a.1.weight", "a.1.bias"}
    assert first_names(model)("b.weight") == "a.0.weight"


def test_modules_with_other_parameters_are_kept(cfg):
    class Gated(nn.Conv2d):
        def __init__(self, *args):
            super().__init__(*args)
            self.gate = nn.Parameter(torch.randn(3))

    model = nn.Sequential(nn.Linear(6, 4), Gated(2, 2, 1))
    ternarize(model, cfg)
    layers = pack_layers(model.eval(), "int8")
    assert set(layers) == {"0"}
    assert set(pack_others(model, layers, "int8").shapes()) == {"1.weight", "1.bias", "1.gate"}
