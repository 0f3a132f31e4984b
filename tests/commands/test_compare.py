import json

import cv2
import numpy as np
import pytest
import torch

from ptq_det.commands.compare import compare, read_runs
from ptq_det.commands.comparison import Result, draw_comparison, table_of
from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model

RUNS = {
    "control": ["TERNARY.ENABLED", "False"],
    "float": ["TERNARY.ENABLED", "False", "SOLVER.MAX_ITER", "0"],
    "one shot": ["SOLVER.MAX_ITER", "0"],
    "PTQ": ["TERNARY.SPARSITY", "0.6"],
}


@pytest.fixture
def setting(cfg, tmp_path):
    torch.save({"model": build_float_model(cfg).state_dict()}, tmp_path / "float.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "float.pth")
    cfg.DATASETS.TEST = ("few_val",)
    cfg.SOLVER.MAX_ITER = 3
    (tmp_path / "config.yaml").write_text(cfg.dump())
    return str(tmp_path / "config.yaml"), str(tmp_path / "out")


def test_runs_are_trained_packed_and_evaluated_once(setting, tmp_path):
    config, output = setting
    results = {result.name: result for result in compare(config, RUNS, [], output)}
    assert list(results) == list(RUNS)
    assert results["PTQ"].zeros == pytest.approx(0.6, abs=2e-3)
    assert results["one shot"].zeros == pytest.approx(0.8, abs=2e-3)
    file = tmp_path / "out/PTQ/model_final.safetensors"
    assert results["PTQ"].bytes == file.stat().st_size
    assert results["control"].bytes == results["float"].bytes > 10 * results["PTQ"].bytes
    assert set(results["control"].ap) == {"bbox", "segm"}
    file.unlink()  # a run that has its result is not done again
    again = compare(config, RUNS, [], output)
    assert json.dumps([r.__dict__ for r in again]) == json.dumps(
        [r.__dict__ for r in results.values()]
    )
    assert not file.exists()
    with pytest.raises(InputError, match="another config or other weights"):
        compare(config, {"PTQ": ["TERNARY.SPARSITY", "0.7"]}, [], output)
    # A later run's folder is looked at before the first run is trained.
    others = {"new": RUNS["one shot"], "PTQ": RUNS["PTQ"]}
    (tmp_path / "out/PTQ/settings.sha256").unlink()
    with pytest.raises(InputError, match=r"PTQ is the folder of a run whose config .* not known"):
        compare(config, others, [], output)
    assert not (tmp_path / "out/new/result.json").exists()
    (tmp_path / "out/control/result.json").write_text('{"name": "con')
    with pytest.raises(InputError, match=r"result\.json cannot be read .*; remove it"):
        compare(config, {"control": RUNS["control"]}, [], output)


def test_table_and_picture(tmp_path):
    first = Result("control", [], 0.0, 32.0, 177_000_000, {"bbox": 30.0, "segm": 25.0})
    second = Result("PTQ", [], 0.8, 0.88, 5 << 20, {"bbox": 29.0, "segm": 23.5})
    lines = table_of([first, second]).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == [
        "PTQ", "80.0 %", "0.88", "5.00", "29.0", "23.5", "-1.0", "-1.5"
    ]  # fmt: skip
    draw_comparison([first, second], str(tmp_path / "plot.png"))
    assert np.ptp(cv2.imread(str(tmp_path / "plot.png"))) > 100


def test_runs_of_one_curve_are_joined_in_order_of_their_sizes(tmp_path, monkeypatch):
    sizes = {"float": 168, "PTQ @ 5": 5, "PTQ @ 3": 3, "TWN": 4, "PTQ @ 8": 8}
    results = [
        Result(name, [], 0.8, 0.88, mib << 20, {"bbox": 20.0 + mib}) for name, mib in sizes.items()
    ]
    drawn = {}
    monkeypatch.setattr(
        "matplotlib.axes.Axes.plot",
        lambda axes, x, y, mark, label: drawn.update({label: (x, y, mark)}),
    )
    draw_comparison(results, str(tmp_path / "plot.png"))
    assert drawn["PTQ"] == ([3, 5, 8], [-165, -163, -160], "o-")
    assert drawn["TWN"] == ([4], [-164], "o")


@pytest.mark.parametrize("blind_first", [False, True])
def test_a_model_that_finds_nothing_has_a_row_and_no_ap(blind_first, tmp_path):
    seeing = Result("PTQ", [], 0.8, 0.88, 5 << 20, {"bbox": 29.0, "segm": 23.5})
    blind = Result(
        "one shot", [], 0.8, 0.88, 5 << 20, {"bbox": float("nan")}
    )  # as Detectron2 has it
    results = [blind, seeing] if blind_first else [seeing, blind]
    lines = {line.split("|")[1].strip(): line for line in table_of(results).splitlines()[2:]}
    cells = {name: [c.strip() for c in line.split("|")[5:-1]] for name, line in lines.items()}
    assert cells["PTQ"][:2] == ["29.0", "23.5"]
    assert cells["one shot"][:2] == ["nan", "nan"]
    draw_comparison(results, str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").exists()


@pytest.mark.parametrize("text", ["[", "- a", "a: [b]", "{}", "a: 3", "\xff\xfe\0", "a: \x01"])
def test_runs_of_another_form_are_refused(text, tmp_path):
    (tmp_path / "runs.yaml").write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match=r"runs\.yaml"):
        read_runs(str(tmp_path / "runs.yaml"))


def test_runs_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="nowhere"):
        read_runs("nowhere.yaml")


@pytest.mark.parametrize("name", ["../esc", "/esc", "..", ".", "a/b", '""', '"a\\0b"'])
def test_runs_stay_in_the_folder(name, tmp_path):
    (tmp_path / "runs.yaml").write_text(f"{name}: [TERNARY.ENABLED, False]")
    with pytest.raises(InputError, match="that of a folder in --output"):
        read_runs(str(tmp_path / "runs.yaml"))
