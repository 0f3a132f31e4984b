import re
from pathlib import Path

import pytest

from ptq_det.commands.inspection import describe_file
from ptq_det.packing import PackedFileError
from tests.packing import fixtures  # noqa: F401  (the backbone of a file is registered)

FILES = Path(__file__).parents[1] / "packing/files"


def row(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_what_is_in_a_file():
    path = FILES / "version_2.safetensors"
    text = describe_file(path)
    assert f"{path}: packed model, format version 2" in text
    assert "architecture: detectron2 GeneralizedRCNN, build_resnet_fpn_backbone" in text
    assert "classes: 6 (circle, square, triangle, star, cross, ring)" in text
    assert f"size: {path.stat().st_size} bytes, 0.11 MiB" in text and "calibrated: yes" in text
    assert "engine float: may be named" in text
    assert "engine int8: cannot run it here: its activations have bits of their own" in text
    assert row(text, "backbone.bottom_up.stem.conv1")[1:3] == ["int8", "8 × 3 × 7 × 7"]
    _, kind, shape, zeros, bits, size, input_range = row(text, "roi_heads.box_head.fc2")
    assert (kind, shape) == ("ternary on 6-bit inputs", "16 × 16")
    assert float(zeros) == pytest.approx(80, abs=0.3) and float(bits) < 2 and int(size) > 30
    low, high = input_range.split(" to ")
    assert float(low) == 0 < float(high)


def test_tensors_beside_the_layers():
    text = describe_file(FILES / "version_3.safetensors")
    (line,) = [line for line in text.splitlines() if line.startswith("other tensors: ")]
    count, size, in_int8 = map(int, re.findall(r"(?<!int)\d+", line))
    assert (count, in_int8) == (4, 1)
    assert 0.9 < size / (16 * 32 * 32) < 1.1


def test_a_file_without_calibration():
    text = describe_file(FILES / "version_1.safetensors")
    assert "format version 1" in text and "calibrated: no" in text
    assert "engine int8: cannot run it here: the file was not calibrated" in text
    assert row(text, "roi_heads.box_head.fc1")[-1] == ""


def test_other_files_are_refused(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"no such thing")
    with pytest.raises(PackedFileError):
        describe_file(tmp_path / "m.safetensors")
