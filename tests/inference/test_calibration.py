import json

import pytest

from ptq_det.errors import InputError
from ptq_det.inference import calibrate_packed
from ptq_det.packing import PackedFileError
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.container import Container
from ptq_det.packing.packed_model import PackedModel


def test_ranges_are_held_by_the_file(file):
    packed = PackedModel.read(file)
    assert "backbone.bottom_up.res3.0.shortcut:output" in packed.ranges
    low, high = packed.ranges["backbone.bottom_up.res3.0.conv2"]
    assert low == 0 < high
    assert packed.ranges["backbone.bottom_up.stem.conv1"][0] < 0
    for wrong in ({"a": [1]}, {"a": [2, 1]}, {"a": "xy"}, {"a": [0, float("nan")]}, [1]):
        content = Container.read(file)
        content.metadata["ranges"] = json.dumps(wrong)
        content.write(file)
        with pytest.raises(PackedFileError, match="ranges"):
            PackedModel.read(file)


def test_calibration_on_a_data_set(file):
    packed = PackedModel.read(file)
    packed.ranges = {}
    calibrate_packed(packed, "few_val")
    assert packed.ranges["backbone.fpn_output2"][0] < 0 < packed.ranges["backbone.fpn_output2"][1]
    assert "roi_heads.mask_head.predictor" in packed.ranges  # untrained, it detects nothing
    packed.architecture = Architecture("torchvision", "resnet18", 10)
    with pytest.raises(InputError, match="only detectors"):
        calibrate_packed(packed, "few_val")
