import pytest

from ptq_det.packing.architecture import Architecture


@pytest.mark.parametrize(
    "architecture",
    [Architecture(), Architecture("torchvision", "vgg11", 7), Architecture("module")],
)
def test_json_round_trip(architecture):
    assert Architecture.from_json(architecture.to_json()) == architecture


def test_what_is_said_of_it():
    assert Architecture().is_detector and str(Architecture()) == "detectron2"
    network = Architecture("torchvision", "vgg11", 7)
    assert not network.is_detector and str(network) == "torchvision vgg11"
    assert network.to_json() == ["torchvision", "vgg11", 7]


@pytest.mark.parametrize("value", [["onnx"], ["torchvision"], [], [[]], "detectron2", {"a": 1}])
def test_others_are_not_known(value):
    with pytest.raises(ValueError, match="is not known"):
        Architecture.from_json(value)


def test_a_module_is_given_by_who_reads_the_file():
    module = Architecture("module")
    assert module.is_detector and module.is_given and not module.has_config
    assert module.to_json() == ["module"] and str(module) == "module"
    assert not Architecture().is_given and Architecture().has_config
