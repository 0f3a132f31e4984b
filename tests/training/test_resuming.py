import os

import pytest
import torch

from ptq_det import TernaryTrainer
from ptq_det.errors import InputError
from ptq_det.training.resuming import last_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    """Of a short training."""
    from tests.conftest import tiny_cfg

    folder = tmp_path_factory.mktemp("run")
    cfg = tiny_cfg(folder)
    cfg.SOLVER.MAX_ITER, cfg.TERNARY.PRUNE_END = 2, 0.0
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return folder


@pytest.fixture
def again(cfg, folder, tmp_path):
    """A config that goes on in a copy of the folder."""
    for name in os.listdir(folder):
        if (folder / name).is_file():
            os.link(folder / name, tmp_path / name)
    cfg.SOLVER.MAX_ITER, cfg.TERNARY.PRUNE_END = 4, 0.0
    return cfg


def resume(cfg):
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=True)
    return trainer


def test_the_same_config_goes_on(again, device):
    """Wherever it was trained."""
    assert resume(again).start_iter == 2


def test_an_empty_folder_starts_anew(cfg):
    assert resume(cfg).start_iter == 0


def float_run(cfg):
    cfg.TERNARY.ENABLED = False


def other_quantizer(cfg):
    cfg.TERNARY.QUANTIZER = "TWN"


def other_optimizer(cfg):
    cfg.TERNARY.OPTIMIZER = "SGD"


def other_classes(cfg):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7


def other_frozen_stages(cfg):
    cfg.MODEL.BACKBONE.FREEZE_AT = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (float_run, "is of a PTQ training, and this one is float"),
        (other_quantizer, "is of a PTQ training, and this one is TWN"),
        (other_optimizer, "another optimizer"),
        (other_classes, r"another model.*\(7, 16\) there and \(8, 16\) here"),
        (other_frozen_stages, "other layers were frozen"),
    ],
)
def test_another_run_s_checkpoint_is_refused(change, message, again, monkeypatch):
    monkeypatch.setattr("ptq_det.training.trainer.check_classes", lambda *_: None)
    change(again)
    with pytest.raises(InputError, match=f"{message}.*start anew, without --resume"):
        resume(again)


def test_a_last_checkpoint_that_is_lost_or_cut(again, tmp_path):
    (tmp_path / "last_checkpoint").unlink()
    with pytest.raises(InputError, match=r"by name is model_final\.pth\), but no file last_chec"):
        resume(again)
    for text in ("", "model_0000099.pth"):
        (tmp_path / "last_checkpoint").write_text(text)
        with pytest.raises(InputError, match=r"last_checkpoint names .*, which is not"):
            resume(again)
    torch.save({"model": {}}, tmp_path / "other.pth")
    whole = (tmp_path / "model_final.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    for name in ("other.pth", "cut.pth"):
        (tmp_path / "last_checkpoint").write_text(name)
        with pytest.raises(InputError, match="cannot be resumed from"):
            resume(again)


def test_fewer_iterations_than_there_were_are_refused(again, caplog):
    again.SOLVER.MAX_ITER = 2
    with caplog.at_level("WARNING", "ptq_det"):
        assert resume(again).start_iter == 2  # all done: it is packed and evaluated again
    assert "has had all 2 iterations" in caplog.text
    again.SOLVER.MAX_ITER = 1
    with pytest.raises(InputError, match=r"has had 2 iterations, and SOLVER\.MAX_ITER is 1: raise"):
        resume(again)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names 'nothing', which is not there"),
        (b"none.pth", "names 'none.pth', which is not there"),
        (b"a\0b", "which is not there"),
        (b"\xff\xfe\x00", "is no text that can be read"),
        (None, r"by name is model_final\.pth\), but no file last_checkpoint"),
    ],
)
def test_an_evaluation_does_not_take_other_weights_for_a_lost_checkpoint(
    content, message, again, tmp_path
):
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").unlink()
    if content is not None:
        (tmp_path / "last_checkpoint").write_bytes(content)
    with pytest.raises(InputError, match=f"{message}.*leave --resume out"):
        last_checkpoint(str(tmp_path))
    assert last_checkpoint(str(tmp_path / "new")) is None
