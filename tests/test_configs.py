"""Every config in the repo builds the model it is named for, from any working directory."""

import re
import shlex
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest
from detectron2.config import get_cfg, instantiate
from detectron2.engine import default_argument_parser
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from ptq_det import add_ternary_config, ternarize
from ptq_det.data.weights import WEIGHTS_FOLDER
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.given_model import given_model
from ptq_det.settings import TernarySettings
from ptq_det.ternary.norms import find_norms
from ptq_det.ternary.ternarize import Conversion, ternary_layers
from ptq_det.training.lazy_config_file import check_lazy_config, read_lazy_config
from tests.conftest import REPO
from tests.lazy_models import narrow_vitdet

FOLDER = REPO / "configs"
CONFIGS = sorted(p for p in FOLDER.rglob("*.yaml") if not p.name.startswith("Base"))
LAZY = sorted(FOLDER.rglob("*.py"))
each_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
each_lazy_config = pytest.mark.parametrize("path", LAZY, ids=lambda p: p.stem)


def read(path):
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def name_of(path):
    """As a user in the repo's folder names it."""
    return path.relative_to(REPO).as_posix()


def header(path):
    """The comment that a config starts with, without its marks."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return "\n".join(line[1:].removeprefix(" ") for line in lines)


def command(path):
    """The words of the command in the header; lines that end in a backslash go on."""
    joined = header(path).replace("\\\n", "")
    found = re.search(r"^ +(python .*)$", joined, re.MULTILINE)
    return shlex.split(found.group(1)) if found else []


@dataclass
class Built:
    """The model that a config makes; without a record where the config is of a float model."""

    path: Path
    settings: TernarySettings
    model: nn.Module
    record: Conversion | None


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda p: p.stem)
def built(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        cfg = read(request.param)
        settings = TernarySettings.from_cfg(cfg)
        model = build_float_model(cfg)
        record = ternarize(model, cfg) if settings.enabled else None
        return Built(request.param, settings, model, record)


def test_the_abstracts_recipe_is_without_what_this_project_adds():
    paths = [path for path in CONFIGS if path.stem.endswith("_paper")]
    assert len(paths) == 2
    for path in paths:
        settings = TernarySettings.from_cfg(read(path))
        assert settings.compensation == 0 and settings.distillation == 0
        assert settings.prune_end == 0.1 and settings.decay == 1e-2
        assert read(path).SOLVER.BASE_LR == 2e-4


def test_config_builds(built):
    kind = built.path.stem.removesuffix("_fast").removesuffix("_paper").split("_")[-1]
    assert built.settings.enabled == (kind != "float")
    if built.settings.enabled:
        assert built.settings.quantizer.lower() == kind
        assert built.record.weights > 1.8e6 and not built.record.already


def test_no_ternary_layer_has_a_frozen_norm_behind_it(built):
    layers = ternary_layers(built.model)
    norms = find_norms(built.model)
    behind = {name: built.model.get_submodule(norms[name]) for name in layers if name in norms}
    assert len(behind) > 10 or not layers
    assert not [n for n, norm in behind.items() if isinstance(norm, FrozenBatchNorm2d)]


@each_config
def test_only_ptq_has_ptq_s_sparsities(path):
    node, default = read(path).TERNARY, get_cfg()
    add_ternary_config(default)
    if node.QUANTIZER == "PTQ" or node.MATCH_SPARSITY:
        return
    assert node.SPARSITY == default.TERNARY.SPARSITY
    assert node.SPARSITY_OVERRIDES == default.TERNARY.SPARSITY_OVERRIDES


@each_config
def test_a_config_starts_with_the_command_that_runs_it(path):
    words = command(path)
    assert words[:2] == ["python", "tools/train_net.py"]
    args = default_argument_parser().parse_args(words[2:])
    assert args.config_file == name_of(path)
    cfg = read(path)
    cfg.merge_from_list(args.opts)
    TernarySettings.from_cfg(cfg)
    assert args.eval_only == (cfg.TERNARY.QUANTIZER == "ShiftScaler")


@each_lazy_config
def test_a_lazy_config_starts_with_the_command_that_runs_it(path):
    words = command(path)
    assert words[:2] == ["python", "tools/lazyconfig_train_net.py"]
    assert default_argument_parser().parse_args(words[2:]).config_file == name_of(path)
    assert re.search(r"^(Run|Not run|Not trained)\b", header(path), re.MULTILINE)


@each_lazy_config
def test_a_lazy_config_builds_from_any_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = read_lazy_config(str(path), ["train.device=cpu", "train.output_dir=out"])
    cfg.dataloader.train.dataset.names = cfg.dataloader.test.dataset.names = "shapes_val"
    cfg.train.init_checkpoint = ""  # which check_lazy_config would fetch
    check_lazy_config(cfg, True, False)
    if "net" in cfg.model.backbone:
        net = narrow_vitdet().backbone.net
        net.depth, net.num_heads = cfg.model.backbone.net.depth, cfg.model.backbone.net.num_heads
        net.embed_dim = 24
        cfg.model.backbone.net = net
    model = given_model(cfg.model)
    record = ternarize(model, cfg.ternary)  # every override matches a layer
    assert len(record.converted) > 50 and "roi_heads.box_head.fc1" in record.converted
    cfg.optimizer.params.model = model
    groups = instantiate(cfg.optimizer).param_groups
    assert {group["lr"] for group in groups} and instantiate(cfg.lr_multiplier)(1.0) < 1e-3


@each_config
def test_a_config_says_whether_it_was_run(path):
    assert re.search(r"^(Run|Not run|Not trained)\b", header(path), re.MULTILINE)


def test_every_base_says_what_it_is():
    bases = list(FOLDER.rglob("Base*.yaml"))
    assert bases and all(header(path) for path in bases)


def test_the_zoo_names_every_config():
    rows = [line for line in (FOLDER / "README.md").read_text().splitlines() if line[:1] == "|"]
    named = {n for row in rows for n in re.findall(r"\]\(([\w/]+\.(?:yaml|py))\)", row)}
    assert named == {path.relative_to(FOLDER).as_posix() for path in [*CONFIGS, *LAZY]}


def test_the_main_config_fine_tunes_the_zoo_s_weights():
    cfg = read(FOLDER / "mask_rcnn_R50_ptq.yaml")
    assert cfg.MODEL.WEIGHTS.startswith("detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN")
    record = ternarize(build_float_model(cfg), cfg)
    assert len(record.converted) == 58 and record.weights == 43_679_744


def test_mobilenet_s_norms_follow_their_batches_but_for_the_frozen_stem():
    model = build_float_model(read(FOLDER / "mask_rcnn_mobilenet_v2_ptq.yaml"))
    frozen = [n for n, m in model.named_modules() if isinstance(m, FrozenBatchNorm2d)]
    assert frozen == ["backbone.bottom_up.features.0.1"]


def test_the_demo_s_weights_come_with_the_package():
    cfg = read(FOLDER / "quick_schedules/shapes_mask_rcnn_ptq.yaml")
    path = WEIGHTS_FOLDER / cfg.MODEL.WEIGHTS.removeprefix("ptq_det://")
    assert path.stat().st_size <= 3e6
