"""The tools for packed models as a user calls them."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model

from ptq_det import load_packed, pack_model, ternarize
from ptq_det.modeling.meta_arch import build_float_model
from tests.conftest import REPO
from tests.lazy_models import narrow_rcnn

QUICK = "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"
QUICK_FILE = str(REPO / QUICK)


@pytest.fixture
def tool(repo, tmp_path):
    def run(name, *args, code=0):
        command = [sys.executable, "-W", "ignore", str(repo / f"tools/{name}.py"), *args]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def file(cfg, tmp_path):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_measure_size_of_a_float_model(tool, repo, tmp_path):
    done = tool("measure_size", "--config-file", str(repo / QUICK), "--json", "o.json", "--plot",
                "o.png", "TERNARY.SPARSITY", "0.9")  # fmt: skip
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["verified"] and report["one_shot"] and 0.89 < report["sparsity"] < 0.91
    assert (tmp_path / "o.png").stat().st_size > 5000
    assert "one shot" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("file verified")


def test_pack_then_look_into_the_file(tool, repo, tmp_path):
    config = ["--config-file", str(repo / QUICK)]
    done = tool("pack", *config, "--output", "o.safetensors", "TERNARY.SPARSITY", "0.9")
    size = (tmp_path / "o.safetensors").stat().st_size
    assert f"o.safetensors: {size} bytes" in done.stdout and "one shot" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("file verified")
    again = tool("pack", *config, "o.safetensors", "--output", "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "o.safetensors"
    ).read_bytes()
    assert "one shot" not in again.stdout
    look = tool("measure_size", "o.safetensors", "--json", "o.json", "--plot", "o.png").stdout
    assert json.loads((tmp_path / "o.json").read_text())["file_bytes"] == size
    assert (tmp_path / "o.png").exists()
    assert f"{size} bytes" in look and "format version 3" in look and "GeneralizedRCNN" in look
    assert "classes: 6 (circle, square" in look and "calibrated: no" in look
    (row,) = [line for line in look.splitlines() if "roi_heads.box_head.fc1 " in line]
    assert "| ternary |" in re.sub(" +", " ", row) and "| 90.0" in row


def test_measure_size_of_a_classification_network(tool):
    arguments = ["--torchvision", "resnet18", "TERNARY.SPARSITY", "0.89"]
    packed = tool("pack", *arguments, "--output", "c.safetensors")
    assert packed.stdout.splitlines()[-1].startswith("44.6 MiB -> 0.89 MiB")
    done = tool("measure_size", *arguments)
    assert "| fc " in done.stdout and "44.6 MiB -> 0.89 MiB" in done.stdout


def test_unpack_writes_the_lazy_config_as_data(tool, tmp_path):
    node = narrow_rcnn()
    model = instantiate(node).eval()
    ternarize(model, {})
    pack_model(model, node, tmp_path / "m.safetensors")
    tool("unpack", "m.safetensors", "m.pth")
    data = LazyConfig.load(str(tmp_path / "m.yaml")).model
    assert data.roi_heads.box_head.fc_dims == node.roi_heads.box_head.fc_dims
    assert data.backbone._target_ == "detectron2.modeling.FPN"
    stock = instantiate(node)
    weights = torch.load(tmp_path / "m.pth", weights_only=True)["model"]
    assert not any(stock.load_state_dict(weights, strict=False))


def test_unpack_writes_a_plain_checkpoint(tool, file, cfg, tmp_path):
    tool("unpack", "m.safetensors", "m.pth")
    weights = torch.load(tmp_path / "m.pth", weights_only=True)["model"]
    missing, unexpected = build_float_model(cfg).load_state_dict(weights, strict=False)
    assert not missing and not unexpected
    values = weights["roi_heads.mask_head.mask_fcn1.weight"].flatten(1)
    assert all(len(row.abs().unique()) <= 2 for row in values)
    tool("unpack", "m.safetensors", "m.pth")  # again
    (tmp_path / "other.yaml").write_text("MODEL: {}")
    done = tool("unpack", "m.safetensors", "other.pth", code=2)
    assert "is another file" in done.stderr and not (tmp_path / "other.pth").exists()
    assert "name OUT .pth" in tool("unpack", "m.safetensors", "new.yaml", code=2).stderr
    stock = get_cfg()  # which has no node TERNARY
    stock.merge_from_file(str(tmp_path / "m.yaml"))
    stock.MODEL.DEVICE = "cpu"
    sample = {"image": torch.rand(3, 64, 64) * 255, "height": 64, "width": 64}
    model = build_model(stock).eval()
    DetectionCheckpointer(model).load(str(tmp_path / stock.MODEL.WEIGHTS))
    (found,), (wanted,) = model([sample]), load_packed(str(file), "cpu")([sample])
    torch.testing.assert_close(found["instances"].scores, wanted["instances"].scores)


def test_demo_draws_pictures(tool, file, pictures, tmp_path):
    picture = next((pictures / "val").glob("*.png"))
    args = ["--weights", "m.safetensors", "--input", str(picture), "--output", "drawn"]
    done = tool("demo", *args, "--min-size", "64")
    assert (tmp_path / "drawn" / picture.name).exists() and "objects" in done.stdout


def test_demo_without_arguments_finds_things(tool, tmp_path):
    done = tool("demo")
    found = re.findall(r"output/demo/\d+\.png: (\d+) objects of a score", done.stdout)
    assert len(found) == 6 and sum(map(int, found)) >= 12
    assert len(list((tmp_path / "output/demo").glob("*.png"))) == 6
    on_integers = tool("demo", "--engine", "int8")
    assert "Engine: int8" in on_integers.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pack", "no.safetensors", "--output", "o"], "no.safetensors"),
        (["pack", "m.pth", "--output", "o"], "m.pth is no packed model; give its --config-file"),
        (["pack", "cut.safetensors", "--output", "o"], "cut.safetensors: cut"),
        (["pack", "--output", "o"], "give --config-file, or a packed file alone"),
        (["pack", "m.safetensors", "A", "1", "--output", "o"], "a packed file alone"),
        (["pack", "m.safetensors", "--calibrate", "nothing", "--output", "o"], "'nothing'"),
        (["measure_size", "no.safetensors"], "no.safetensors"),
        (["measure_size", "cut.safetensors"], "cut.safetensors: cut"),
        (["unpack", "no.safetensors", "o.pth"], "no.safetensors"),
        (["unpack", "cut.safetensors", "o.pth"], "cut.safetensors: cut"),
        (["demo", "--weights", "cut.safetensors", "--input", "a", "--output", "b"], "cut"),
        (["demo", "--weights", "m.safetensors", "--input", "no.jpg", "--output", "b"], "no.jpg"),
        (["measure_size", "--torchvision", "resnet18", "no.pth"], "no.pth"),
        (["pack", "--torchvision", "resnet18", "no.pth", "--output", "o"], "no.pth"),
        (
            [
                "pack",
                "--config-file",
                QUICK_FILE,
                "m.safetensors",
                "TERNARY.SPARSITY",
                "0.9",
                "--output",
                "o",
            ],
            "m.safetensors is packed already: TERNARY.SPARSITY does not",
        ),
        (
            [
                "benchmark",
                "difference",
                "--dataset",
                "nowhere",
                "--predictions",
                "a",
                "--baseline",
                "b",
            ],
            "'nowhere' is not registered",
        ),
        (["benchmark", "train", "--config-file", "no.yaml"], "no.yaml"),
        (
            ["benchmark", "inference", "--weights", "no.safetensors", "--dataset", "shapes_val"],
            "no.safetensors",
        ),
        (["make_demo_weights", "no.pth"], "no.pth"),
        (["measure_size", "--config-file", "no.yaml"], "no.yaml"),
        (["measure_size", "--torchvision", "resnet18", "TERNARY.SPARSTY", "1"], "SPARSTY"),
        (["measure_size", "--torchvision", "resnet18", "TERNARY.SPARSITY", "1.5"], "allowed"),
    ],
)
def test_a_user_s_mistake_gets_one_message(tool, file, tmp_path, args, message):
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:9000])
    (tmp_path / "m.pth").write_bytes(b"other weights")
    assert message in tool(*args, code=2).stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["demo", "a.jpg"], "pictures are given by --input"),
        (["demo", "--fine-tune", "--engine", "int8"], "--fine-tune runs the whole path in float"),
        (["measure_size"], "give a packed file alone, --config-file or --torchvision"),
        (["measure_size", "m.safetensors", "A.B", "1"], "give a packed file alone"),
        (["measure_size", "m.safetensors", "--output", "o"], "unrecognized arguments: --output"),
    ],
)
def test_words_that_do_not_go_together(tool, args, message):
    assert message in tool(*args, code=2).stderr
