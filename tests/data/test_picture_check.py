import struct
import zlib

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image, ImageOps

from ptq_det.data.picture_check import check_pictures
from ptq_det.data.picture_depth import bits_of


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.tiff", {"compression": "tiff_lzw"}),
        ("a.gif", {}),
        ("a.ppm", {}),
        ("a.jp2", {}),
        ("a.tga", {}),
        ("a.png", {}),
        ("a.webp", {}),
    ],
)
def test_pictures_of_every_format_that_are_cut(record, tmp_path, name, options):
    path = tmp_path / name
    Image.open(record["file_name"]).save(path, **options)
    record["file_name"] = str(path)
    assert check_pictures([record]) == check_pictures([record], decode=True) == []
    data = path.read_bytes()
    for part in (0.4, 0.95):
        path.write_bytes(data[: int(len(data) * part)])
        (line,) = check_pictures([record])
        assert f"{name}: it cannot be read" in line


def test_a_picture_that_is_cut_behind_its_thumbnail(record, tmp_path):
    path = tmp_path / "a.jpg"
    data = path.read_bytes()
    thumbnail = b"\xff\xfe" + (2 + 500).to_bytes(2, "big") + b"x" * 400 + b"\xff\xd9" * 50
    path.write_bytes((data[:2] + thumbnail + data[2:])[:2500])
    (line,) = check_pictures([record])
    assert "cannot be read" in line
    path.write_bytes(data + b"behind the picture")  # as some cameras do
    assert check_pictures([record]) == []


def ppm(maximum: int) -> bytes:
    size = 1 if maximum < 256 else 2
    return b"P6 # a comment\n64 48 # 9 9 9\n%d\n" % maximum + bytes(64 * 48 * 3 * size)


def png_16() -> bytes:
    """Colours of 16 bits, which Pillow does not write."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return len(data).to_bytes(4, "big") + kind + data + crc.to_bytes(4, "big")

    header = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(64 * 6) for _ in range(48)))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff_16() -> bytes:
    """Colours of 16 bits, which Pillow does not write."""
    entries = [
        (256, 4, 1, 64),
        (257, 4, 1, 48),
        (258, 3, 3, 8),  # at byte 8: three numbers
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 200),
        (277, 3, 1, 3),
        (278, 4, 1, 48),
        (279, 4, 1, 64 * 48 * 6),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = b"II*\0" + struct.pack("<I", 14) + struct.pack("<HHH", 16, 16, 16) + directory
    return head.ljust(200, b"\0") + bytes(64 * 48 * 6)


def test_colours_of_more_than_8_bits(record, tmp_path):
    made = {"a.png": png_16(), "a.tif": tiff_16(), "a.ppm": ppm(65535), "b.ppm": ppm(1023)}
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
        with Image.open(tmp_path / name) as image:
            assert image.mode == "RGB" and image.size == (64, 48), name
        for decode in (False, True):
            (line,) = check_pictures([{**record, "file_name": str(tmp_path / name)}], decode)
            assert f"{name}: its pixels have more than 8 bits (" in line, line
    (tmp_path / "c.ppm").write_bytes(ppm(255))
    assert check_pictures([{**record, "file_name": str(tmp_path / "c.ppm")}]) == []


def test_jpeg_2000_tells_its_bits(tmp_path):
    for kind in (np.uint8, np.uint16):
        Image.fromarray(np.zeros((48, 64), kind)).save(tmp_path / "a.jp2")
        with Image.open(tmp_path / "a.jp2") as image:
            assert bits_of(image, str(tmp_path / "a.jp2")) == 8 * kind().itemsize


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_a_turned_tiff_is_refused_as_it_is_turned_twice(record, tmp_path, orientation):
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:10, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.tif"
    Image.fromarray(pixels).save(path, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    read = read_image(str(path), "RGB")
    is_right = read.shape == shown.shape and (read == shown).all()
    assert is_right == (orientation == 1)
    for size in ((64, 48), (48, 64)):
        turned = {"file_name": str(path), "width": size[0], "height": size[1]}
        found = check_pictures([turned])
        assert found == check_pictures([turned], decode=True)
        assert bool(found) == (orientation != 1 or size != (64, 48))


def test_exif_behind_the_pixels_of_a_png(record, tmp_path):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(record["file_name"]).save(path, exif=exif)
    data = path.read_bytes()
    place = data.index(b"eXIf") - 4
    end = place + 12 + int.from_bytes(data[place : place + 4], "big")
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:place] + data[end:last] + data[place:end] + data[last:])
    for decode in (False, True):
        (line,) = check_pictures([{**record, "file_name": str(path)}], decode)
        assert "48 × 64 pixels as it is shown" in line


def test_colours_that_are_not_read(record, tmp_path):
    path = tmp_path / "lab.tif"
    Image.fromarray(np.zeros((48, 64, 3), np.uint8), "LAB").save(path)
    (line,) = check_pictures([{**record, "file_name": str(path)}])
    assert "save it in RGB" in line
