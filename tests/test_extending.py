"""The skeletons of docs/extending.md, run, and used by config alone."""

import os
import re
import subprocess
import sys
from inspect import signature
from itertools import product

import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY

from ptq_det import TernaryTrainer, add_ternary_config, load_packed
from ptq_det.engines import ENGINE_REGISTRY
from ptq_det.errors import EngineError, InputError
from ptq_det.inference.evaluation import load_for_evaluation
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel
from ptq_det.quantizers import QUANTIZER_REGISTRY
from ptq_det.settings import TernarySettings
from ptq_det.ternary.ternarize import ternary_layers
from tests.conftest import REPO
from tests.packing.test_old_versions import assert_as_then
from tests.quantizers.test_base import ODD_WEIGHTS, TestEveryQuantizer

EVERY, TestEveryQuantizer = TestEveryQuantizer, None  # not to be collected here too
PICTURE = {"image": torch.randint(0, 256, (3, 96, 80)), "height": 96, "width": 80}


def block(title: str) -> str:
    """The Python under a title of the page."""
    section = (REPO / "docs/extending.md").read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return code


@pytest.fixture
def extended():
    """Runs a block; what it registers is gone afterwards."""
    registries = (QUANTIZER_REGISTRY, ENGINE_REGISTRY, BACKBONE_REGISTRY)
    before = [dict(registry._obj_map) for registry in registries]
    yield lambda title: exec(block(title), {"__name__": "a_user_s_module"})
    for registry, entries in zip(registries, before, strict=True):
        registry._obj_map.clear()
        registry._obj_map.update(entries)


def test_a_quantizer_and_an_engine_from_outside_are_used_by_config(extended, cfg):
    extended("A quantizer")
    extended("An engine")
    add_ternary_config(cfg)  # the config was there before: the new option joins it
    assert cfg.TERNARY.GROUP == 4
    cfg.TERNARY.QUANTIZER, cfg.TERNARY.GROUP, cfg.SOLVER.MAX_ITER = "LargestOfGroup", 8, 3
    cfg.DATASETS.TEST = ("few_val",)
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    for layer in ternary_layers(trainer.model).values():
        codes = layer.codes_and_scale()[0]
        assert (codes != 0).sum(1).max() <= -(-codes.shape[1] // 8)
    file = f"{cfg.OUTPUT_DIR}/model_final.safetensors"
    cfg.TERNARY.ENGINE = "channels_last"
    model = load_for_evaluation(cfg, file)
    weight = model.backbone.bottom_up.res3[0].conv2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert weight.sign().flatten(1).abs().sum(1).max() <= -(-weight[0].numel() // 8)
    assert len(model([PICTURE])) == 1


def test_a_wrong_option_or_engine_is_refused(extended, cfg, tmp_path):
    extended("A quantizer")
    extended("An engine")
    add_ternary_config(cfg)
    cfg.TERNARY.GROUP = "many"
    with pytest.raises(InputError, match=r"TERNARY\.GROUP is 'many'; allowed: a whole number"):
        TernarySettings.from_cfg(cfg)
    cfg.TERNARY.GROUP, cfg.TERNARY.ENGINE = 4, "channels_first"
    with pytest.raises(InputError, match=r'ENGINE is .*"channels_last"'):
        TernarySettings.from_cfg(cfg)
    cfg.TERNARY.ENGINE = ""
    cfg.MODEL.RESNETS.NUM_GROUPS = 2
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    model = TernaryTrainer.build_model(cfg)
    PackedModel.of(model, cfg).write(tmp_path / "m.safetensors")
    with pytest.raises(EngineError, match=r"channels_last cannot run .*convolutions in groups"):
        load_packed(tmp_path / "m.safetensors", "cpu", "channels_last")


def test_every_quantizer_s_test_holds_for_the_skeleton(extended):
    extended("A quantizer")
    quantizer = QUANTIZER_REGISTRY.get("LargestOfGroup")()
    tests = [getattr(EVERY(), name) for name in dir(EVERY) if name.startswith("test_")]
    assert len(tests) >= 6
    for test, weight in product(tests, ODD_WEIGHTS):
        given = {"quantizer": quantizer, "weight": weight, "device": "cpu"}
        test(**{name: given[name] for name in signature(test).parameters})


def test_a_builder_from_outside_is_used_by_config(extended, cfg):
    extended("A builder")
    cfg.MODEL.BACKBONE.NAME = "build_ternary_three_steps_backbone"
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64]]
    cfg.TERNARY.ENABLED = False
    cfg.TERNARY.SKIP = ["backbone.bottom_up.start"]
    assert TernarySettings.is_ternary_config(cfg)
    names = set(ternary_layers(build_float_model(cfg)))
    assert {f"backbone.bottom_up.steps.s{s}" for s in (4, 8, 16)} < names
    assert "backbone.fpn_output4" in names and "backbone.bottom_up.start" not in names


def test_a_fixture_of_a_version_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests/packing/files").mkdir(parents=True)
    space = {}
    exec(block("A version of the file format"), space)
    assert_as_then(space["written"])


def test_a_module_that_the_environment_names_is_there_for_every_tool(repo, tmp_path):
    module = "\n".join(map(block, ("A quantizer", "An engine")))
    (tmp_path / "my_module.py").write_text(module)
    weights = repo / "ptq_det/data/weights/shapes_mask_rcnn_ptq.safetensors"
    command = [sys.executable, "-W", "ignore", str(repo / "tools/demo.py"), "--output", "drawn"]
    command += ["--weights", str(weights), "--engine", "channels_last"]
    folders = os.pathsep.join([str(repo), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": folders, "PTQ_DET_PLUGINS": "my_module"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "Engine: channels_last" in done.stdout and "objects" in done.stdout
    code = "import ptq_det; from ptq_det.quantizers import all_options; print(all_options())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert "'group'" in done.stdout, done.stderr
