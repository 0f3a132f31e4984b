import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model

from ptq_det import pack_model, ternarize
from ptq_det.commands.draw import draw_predictions, predictor_of
from ptq_det.errors import InputError
from ptq_det.packing.packed_model import PackedModel


@pytest.fixture
def file(cfg, tmp_path):
    cfg.DATASETS.TEST = ("few_val",)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    return str(tmp_path / "m.safetensors")


def test_pictures_are_drawn_with_the_names_of_the_classes(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    assert metadata.thing_classes == PackedModel.read(file).classes
    assert "triangle" in metadata.thing_classes
    names = sorted(map(str, (pictures / "val").glob("*.png")))[:2]
    drawn = list(draw_predictions(predictor, metadata, names, tmp_path / "out", 0.0))
    assert [path.parent for path, _ in drawn] == [tmp_path / "out"] * 2
    for (path, count), name in zip(drawn, names, strict=True):
        after = cv2.imread(str(path))
        before = cv2.resize(cv2.imread(name), (512, 512), interpolation=cv2.INTER_NEAREST)
        assert after.shape == before.shape  # small pictures are drawn larger, to be read
        assert count > 0 and not np.array_equal(before, after)


def test_a_threshold_hides_what_is_uncertain(file, pictures, tmp_path):
    predictor, metadata = predictor_of(file, min_size=64)
    names = [str(next((pictures / "val").glob("*.png")))]
    [(_, count)] = draw_predictions(predictor, metadata, names, tmp_path, 1.01)
    assert count == 0


def test_a_file_that_is_no_picture_is_named(file, tmp_path):
    predictor, metadata = predictor_of(file)
    with pytest.raises(InputError, match=r"m\.safetensors"):
        list(draw_predictions(predictor, metadata, [file], tmp_path / "out", 0.5))
