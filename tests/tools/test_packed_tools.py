"""The tools for packed models as a user calls them."""

import json
import os
import subprocess
import sys

import pytest
import torch
from detectron2.modeling import build_model

from ptq_det import pack_model, ternarize

QUICK = "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"


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
    model = build_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_measure_size_packs_a_float_model(tool, repo, tmp_path):
    args = ["--config-file", str(repo / QUICK), "--output", "o.safetensors"]
    done = tool("measure_size", *args, "--json", "o.json", "--plot", "o.png")
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["verified"] and report["one_shot"]
    assert report["file_bytes"] == (tmp_path / "o.safetensors").stat().st_size
    assert (tmp_path / "o.png").stat().st_size > 5000
    assert "one shot" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("file verified")
    again = tool(
        "measure_size", "--config-file", str(repo / QUICK), "MODEL.WEIGHTS", "o.safetensors"
    )
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert "one shot" not in again.stdout


def test_measure_size_of_a_classification_network(tool):
    done = tool("measure_size", "--torchvision", "resnet18", "TERNARY.SPARSITY", "0.89")
    assert "| fc " in done.stdout and "44.6 MiB -> 0.89 MiB" in done.stdout


def test_unpack_writes_a_plain_checkpoint(tool, file, cfg, tmp_path):
    tool("unpack", "m.safetensors", "m.pth")
    weights = torch.load(tmp_path / "m.pth", weights_only=True)["model"]
    missing, unexpected = build_model(cfg).load_state_dict(weights, strict=False)
    assert not missing and not unexpected
    values = weights["roi_heads.mask_head.mask_fcn1.weight"].flatten(1)
    assert all(len(row.abs().unique()) <= 2 for row in values)


def test_demo_draws_pictures(tool, file, pictures, tmp_path):
    picture = next((pictures / "val").glob("*.png"))
    args = ["--weights", "m.safetensors", "--input", str(picture), "--output", "drawn"]
    done = tool("demo", *args, "--min-size", "64")
    assert (tmp_path / "drawn" / picture.name).exists() and "objects" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["unpack", "no.safetensors", "o.pth"], "no.safetensors"),
        (["unpack", "cut.safetensors", "o.pth"], "cut.safetensors: cut"),
        (["demo", "--weights", "cut.safetensors", "--input", "a", "--output", "b"], "cut"),
        (["demo", "--weights", "m.safetensors", "--input", "no.jpg", "--output", "b"], "no.jpg"),
        (["measure_size", "--torchvision", "resnet18", "--weights", "no.pth"], "no.pth"),
        (["measure_size", "--config-file", "no.yaml"], "no.yaml"),
        (["measure_size", "--torchvision", "resnet18", "TERNARY.SPARSTY", "1"], "SPARSTY"),
        (["measure_size", "--torchvision", "resnet18", "TERNARY.SPARSITY", "1.5"], "allowed"),
    ],
)
def test_a_user_s_mistake_gets_one_message(tool, file, tmp_path, args, message):
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:9000])
    assert message in tool(*args, code=1).stderr
