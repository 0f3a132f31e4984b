import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ptq_det import load_packed
from ptq_det.commands.classification import NETWORKS, build_classifier, classifier_config
from ptq_det.errors import InputError
from ptq_det.packing.source import packed_from_model
from ptq_det.ternary.ternarize import ternary_layers


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back(name, tmp_path):
    model, architecture = build_classifier(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    cfg = classifier_config(name, ["TERNARY.SPARSITY", "0.5"])
    packed, one_shot = packed_from_model(model, cfg, architecture)
    assert one_shot
    floats = {key for key, layer in packed.layers.items() if layer.kind != "ternary"}
    depthwise = {k for k, m in model.named_modules() if getattr(m, "groups", 1) > 1}
    assert floats == {NETWORKS[name], *depthwise}  # the classifier is ternary too
    assert bool(depthwise) == (name == "mobilenet_v2")
    packed.write(tmp_path / "m.safetensors")
    loaded = load_packed(tmp_path / "m.safetensors")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in loaded.modules())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = model(x), loaded(x)
    assert float((found - expected).norm() / expected.norm()) < 0.03


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_are_loaded_with_their_number_of_classes(ending, tmp_path):
    source, _ = build_classifier("resnet18")
    source.fc = nn.Linear(512, 7)
    path = tmp_path / f"w{ending}"
    save = save_file if ending == ".safetensors" else torch.save
    save(source.state_dict(), path)
    model, architecture = build_classifier("resnet18", str(path))
    assert architecture.to_json() == ["torchvision", "resnet18", 7]
    assert torch.equal(model.fc.weight, source.fc.weight)


def test_weights_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="not found"):
        build_classifier("resnet18", "nowhere.pth")
    (tmp_path / "w.pth").write_bytes(b"text")
    with pytest.raises(InputError, match="cut, or no checkpoint"):
        build_classifier("resnet18", str(tmp_path / "w.pth"))
    (tmp_path / "w.html").write_text("<html>")
    with pytest.raises(InputError, match="a web page") as error:
        build_classifier("resnet18", str(tmp_path / "w.html"))
    assert len(str(error.value).splitlines()) == 1
    other, _ = build_classifier("mobilenet_v2")
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold the weights of resnet18"):
        build_classifier("resnet18", str(tmp_path / "other.pth"))


def test_overrides_reach_the_layers():
    model, architecture = build_classifier("resnet18")
    cfg = classifier_config("resnet18", ["TERNARY.SPARSITY", "0.9"])
    packed_from_model(model, cfg, architecture)
    assert {layer.ternary.sparsity for layer in ternary_layers(model).values()} == {0.9}
