import numpy as np
import pytest
from PIL import Image

from ptq_det.data.picture_check import check_pictures


@pytest.fixture
def record(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path)
    return {"file_name": str(path), "width": 64, "height": 48}


def test_a_good_picture(record):
    assert check_pictures([record]) == check_pictures([record], decode=True) == []
    assert check_pictures([{"file_name": record["file_name"]}]) == []


def test_what_is_wrong_is_said_with_the_file(record, tmp_path):
    path = tmp_path / "a.jpg"
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.load()
    image.save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "cut.jpg").write_bytes(path.read_bytes()[:1500])
    image.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(tmp_path / "deep.png")
    image.resize((32, 24)).save(tmp_path / "small.jpg")
    expected = {
        "turned.jpg": "48 × 64 pixels as it is shown, and 64 × 48",
        "cut.jpg": "cannot be read",
        "cut.png": "cannot be read",
        "text.jpg": "cannot be read",
        "deep.png": "more than 8 bits",
        "small.jpg": "32 × 24 pixels",
        "nowhere.jpg": "it is not there",
    }
    records = [{**record, "file_name": str(tmp_path / name)} for name in expected]
    found = check_pictures(records)
    assert len(found) == len(expected)
    for line, (name, message) in zip(found, expected.items(), strict=True):
        assert name in line and message in line
    turned = {**records[0], "width": 48, "height": 64}  # annotated as it is shown
    assert check_pictures([turned]) == []
