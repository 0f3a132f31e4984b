import json
import subprocess
import sys

import pytest
from PIL import Image

from tests.inference.conftest import packed_file


def run(repo, *words, **rest):
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, words)],
        cwd=repo, capture_output=True, text=True, **rest,
    )  # fmt: skip


def test_export_decode_predict_and_evaluate(repo, cfg, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    file = packed_file(cfg, tmp_path / "m.safetensors")
    for words in (["m.onnx"], ["m.graph.onnx", "--int8", "--weightless"]):
        done = run(repo, "tools/export_onnx.py", file, tmp_path / words[0], *words[1:])
        assert done.returncode == 0, done.stderr
        assert "compared with" in done.stdout
    predict = "tools/onnx_predict.py"
    (tmp_path / "p").mkdir()
    Image.new("RGB", (50, 40)).save(tmp_path / "p/a.png")
    done = run(repo, predict, file, tmp_path / "p", "--output", tmp_path / "o", "--threshold", 0.01)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "o/results.json").read_text())
    assert all(entry["file_name"].endswith("a.png") for entry in results)
    assert (tmp_path / "o/00000_a.jpg").is_file()
    annotations = pictures / "annotations/val.json"
    model = tmp_path / "m.onnx"
    done = run(repo, predict, model, pictures / "val", "--annotations", annotations)
    assert done.returncode == 0 and "AP: " in done.stdout, done.stderr
    done = run(repo, predict, model, tmp_path / "p", "--output", tmp_path / "p")
    assert done.returncode == 2 and "where pictures are" in done.stderr
    (tmp_path / "p/broken.jpg").write_bytes(b"no picture")
    done = run(repo, predict, model, tmp_path / "p")
    assert done.returncode == 1 and "broken.jpg: it cannot be read" in done.stderr
    assert "a.png: " in done.stdout


MISTAKES = {
    "no such file": ["tools/onnx_predict.py", "none.onnx", "."],
    "--threads 0; give": ["tools/onnx_predict.py", "setup.py", ".", "--threads", "0"],
    "none.safetensors": ["tools/export_onnx.py", "none.safetensors", "out.onnx"],
    "give height and width": ["tools/export_onnx.py", "x", "y", "--size", "3"],
    "--vnni is about integers": ["tools/export_onnx.py", "x", "y", "--vnni"],
    "not in pixels": ["tools/export_onnx.py", "x", "y", "--size", "a", "b"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_end_with_one_line(message, repo):
    done = run(repo, *MISTAKES[message])
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line or "height and width in pixels" in line
