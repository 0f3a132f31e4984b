import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ptq_det import pack_model, ternarize
from ptq_det.commands.draw import built_in_pictures, draw_predictions, predictor_of
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel


@pytest.fixture
def file(cfg, tmp_path):
    cfg.DATASETS.TEST = ("few_val",)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    return str(tmp_path / "m.safetensors")


def test_pictures_are_drawn_with_the_names_of_the_classes(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    assert metadata.thing_classes == PackedModel.read(file).classes
    assert "triangle" in metadata.thing_classes
    names = sorted(map(str, (pictures / "val").glob("*.png")))[:2]
    drawn = list(draw_predictions(predictor, metadata, names, tmp_path / "out", 0.0))
    assert [drawing.source for drawing in drawn] == names
    assert [drawing.path.parent for drawing in drawn] == [tmp_path / "out"] * 2
    for drawing, name in zip(drawn, names, strict=True):
        count, after = drawing.found.count, cv2.imread(str(drawing.path))
        before = cv2.resize(cv2.imread(name), (512, 512), interpolation=cv2.INTER_NEAREST)
        assert after.shape == before.shape  # small pictures are drawn larger, to be read
        assert count > 0 and not np.array_equal(before, after)


def test_a_threshold_hides_what_is_uncertain(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    names = [str(next((pictures / "val").glob("*.png")))]
    (drawing,) = draw_predictions(predictor, metadata, names, tmp_path, 1.01)
    assert drawing.found.count == 0


def test_what_cannot_be_read_is_passed_over_with_the_reason(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file)
    Image.new("L", (10_000, 1)).save(tmp_path / "thin.png")
    Image.new("1", (15_000, 13_000)).save(tmp_path / "large.png")
    good = str(next((pictures / "val").glob("*.png")))
    bad = [file, str(tmp_path / "thin.png"), str(tmp_path / "large.png"), "nowhere.png"]
    drawn = list(draw_predictions(predictor, metadata, [*bad, good], tmp_path / "out", 0.5))
    assert [drawing.path is None for drawing in drawn] == [True] * 4 + [False]
    assert all(drawing.trouble for drawing in drawn[:4])


def test_nothing_is_written_over(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    names = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for stem in ("1", "1_2"):
            names.append(str(tmp_path / folder / f"{stem}.png"))
            shutil.copy(next((pictures / "val").glob("*.png")), names[-1])
    before = [Path(name).read_bytes() for name in names]
    drawn = list(draw_predictions(predictor, metadata, names, tmp_path / "a", 0.5))
    assert len({drawing.path for drawing in drawn}) == 4
    assert [Path(name).read_bytes() for name in names] == before


def test_files_that_are_there_are_kept(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    name = str(next((pictures / "val").glob("*.png")))
    stem, out = Path(name).stem, tmp_path / "out"
    for number in range(1, 4):
        (drawing,) = draw_predictions(predictor, metadata, [name], out, 0.5)
        assert drawing.path.name == (f"{stem}.png" if number == 1 else f"{stem}_{number}.png")
    (out / f"{stem}_4.png").symlink_to("nowhere")
    (drawing,) = draw_predictions(predictor, metadata, [name], out, 0.5)
    assert drawing.path.name == f"{stem}_5.png"


@pytest.mark.parametrize(
    ("mode", "message"), [("I;16", "more than 8 bits"), ("I", "more than 8 bits"), ("F", "8 bits")]
)
def test_pictures_of_more_than_8_bits_are_passed_over(mode, message, file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    bad = tmp_path / ("deep.png" if mode == "I;16" else "deep.tif")
    Image.new(mode, (64, 64), 1000).save(bad)
    good = str(next((pictures / "val").glob("*.png")))
    first, second = draw_predictions(predictor, metadata, [str(bad), good], tmp_path / "out", 0.5)
    assert first.path is None and message in first.trouble and str(bad) not in first.trouble
    assert second.path is not None


def test_a_broken_chunk_does_not_end_the_others(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    good = str(next((pictures / "val").glob("*.png")))
    data = Path(good).read_bytes()
    start = data.index(b"IDAT")
    size = int.from_bytes(data[start - 4 : start], "big")
    pixels, rest = data[start + 4 : start + 4 + size], data[start + 8 + size :]
    half = size // 2
    chunks = [
        len(part).to_bytes(4, "big") + kind + part + zlib.crc32(kind + part).to_bytes(4, "big")
        for kind, part in ((b"IDAT", pixels[:half]), (b"\0\0\0\0", pixels[half:]))
    ]
    (tmp_path / "broken.png").write_bytes(data[: start - 4] + b"".join(chunks) + rest)
    with pytest.raises(SyntaxError):  # which is no error of reading files
        Image.open(tmp_path / "broken.png").load()
    names = [str(tmp_path / "broken.png"), good]
    first, second = draw_predictions(predictor, metadata, names, tmp_path / "out", 0.5)
    assert first.path is None and "cannot be read" in first.trouble
    assert second.path is not None


def test_generated_pictures_leave_other_folders_alone(tmp_path):
    (tmp_path / "pictures/val").mkdir(parents=True)
    (tmp_path / "pictures/val/own.png").write_bytes(b"own")
    names = built_in_pictures(tmp_path, 2)
    assert [Path(n).relative_to(tmp_path).parts for n in names] == [
        ("pictures_2", "val", "0001.png"), ("pictures_2", "val", "0002.png")
    ]  # fmt: skip
    assert (tmp_path / "pictures/val/own.png").read_bytes() == b"own"
    assert built_in_pictures(tmp_path, 2) == names  # of the earlier run
