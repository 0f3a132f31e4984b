"""Lazy configs that are read, and mistakes in them."""

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from ptq_det.errors import InputError
from ptq_det.lazy import settings_in
from ptq_det.training.lazy_config_file import check_lazy_config, read_lazy_config
from tests.conftest import REPO

CONFIG = str(REPO / "tests/training/lazy_config.py")


def checked(*overrides, training=True, resume=False):
    check_lazy_config(read_lazy_config(CONFIG, list(overrides)), training, resume)


@pytest.fixture(autouse=True)
def _here(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_overrides_are_taken():
    cfg = read_lazy_config(CONFIG, ["train.max_iter=7", "ternary.sparsity=0.85"])
    assert cfg.train.max_iter == 7 and settings_in(cfg).sparsity == 0.85
    check_lazy_config(cfg, True, False)


def test_a_config_of_the_zoo_by_its_name_and_one_that_was_saved(tmp_path):
    name = "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"
    cfg = read_lazy_config(name, ["ternary.sparsity=0.7"])
    assert "model" in cfg and cfg.ternary.sparsity == 0.7
    cfg = read_lazy_config(CONFIG, [])
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = read_lazy_config(str(tmp_path / "saved.yaml"), [])
    assert OmegaConf.to_container(again.ternary) == OmegaConf.to_container(cfg.ternary)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = (", "SyntaxError"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("train = dict(device='cpu')", "has no model, dataloader, train.output_dir, .*optimizer"),
    ],
)
def test_a_config_that_fails_says_why(text, message, tmp_path):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(InputError, match=message):
        check_lazy_config(read_lazy_config("c.py", []), True, False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.device=cuda"],
            "train.device is 'cuda', but PyTorch finds no GPU; set train.devic",
        ),
        (["train.max_iter=0"], "train.max_iter is 0, so nothing"),
        (["train.init_checkpoint=no.pth"], "train.init_checkpoint 'no.pth' not found"),
        (["train.output_dir=/etc/passwd"], "train.output_dir '/etc/passwd' cannot be written"),
        (["dataloader.train.dataset.names=nowhere"], "data set 'nowhere' is not registered"),
        (["dataloader.test.dataset.names=[few_val,nowhere]"], "data set 'nowhere'"),
        (["ternary.sparsity=1.5"], r"TERNARY.SPARSITY is 1\.5; allowed"),
        (["ternary.sparseness=0.5"], "'sparseness' is no setting"),
        (["train.max_iter 7"], "an override of 'train.max_iter 7'.*They look like"),
        (["train.max_iter.a=7"], "is not a config"),
    ],
)
def test_mistakes_are_said(overrides, message, tmp_path):
    with pytest.raises(InputError, match=message):
        checked(*overrides)


def test_what_is_no_lazy_config(tmp_path):
    with pytest.raises(InputError, match=r"config file .no\.py. not found"):
        read_lazy_config("no.py", [])
    with pytest.raises(InputError, match=r"is no lazy config.*train_net.py takes YAML"):
        read_lazy_config(str(REPO / "configs/mask_rcnn_R50_ptq.yaml"), [])


def test_nothing_ternary_is_a_mistake_unless_it_is_said():
    cfg = read_lazy_config(CONFIG, [])
    del cfg["ternary"]
    with pytest.raises(InputError, match="says nothing of ternary layers"):
        check_lazy_config(cfg, True, False)
    checked("ternary.enabled=False")


def test_resuming_needs_a_checkpoint_to_evaluate():
    checked("train.init_checkpoint=", resume=True)
    with pytest.raises(InputError, match=r"--resume evaluates the last checkpoint of train\.outp"):
        checked(training=False, resume=True)
