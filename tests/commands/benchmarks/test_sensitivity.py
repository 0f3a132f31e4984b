import pytest

from ptq_det.commands.benchmarks.sensitivity import benchmark_sensitivity, sensitivity_table
from ptq_det.errors import InputError
from ptq_det.sizing import target
from ptq_det.sizing.sensitivity import LayerSensitivity


def test_the_table_shows_errors_as_shares_of_all():
    points = (0.4, 0.8, 0.95)
    layers = [
        LayerSensitivity("a", 10, points, (1.0, 3.0, 5.0), (4096, 2048, 1024)),
        LayerSensitivity("b", 20, points, (0.5, 1.0, 2.0), (8192, 2048, 1024)),
    ]
    lines = sensitivity_table(layers).splitlines()
    headers, first = ([cell.strip() for cell in lines[i].split("|")[1:-1]] for i in (0, 2))
    row = dict(zip(headers, first, strict=True))
    assert row["layer"] == "a" and row["weights"] == "10"
    assert row["error 80 %"] == "750.0" and row["KiB 80 %"] == "2" and row["KiB 95 %"] == "1"
    assert row["error 95 %"] == "1250.0"


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(target, "SPARSITIES", (0.5, 0.9))
    monkeypatch.setattr(target, "BATCHES", 1)


def test_each_ternary_layer_is_measured(cfg, tmp_path, few, capsys):
    cfg.TERNARY.SKIP = ["backbone.*"]
    (tmp_path / "cfg.yaml").write_text(cfg.dump())
    plot = tmp_path / "curves.png"
    result = benchmark_sensitivity(str(tmp_path / "cfg.yaml"), [], str(plot))
    names = {row["name"] for row in result}
    assert {"roi_heads.box_head.fc1", "proposal_generator.rpn_head.conv"} <= names
    assert all(row["sizes"][0] > row["sizes"][1] for row in result if row["weights"] > 1000)
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in names)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_quantizer_with_zeros_of_its_own_is_refused(cfg, tmp_path):
    cfg.TERNARY.QUANTIZER = "TWN"
    (tmp_path / "cfg.yaml").write_text(cfg.dump())
    with pytest.raises(InputError, match="TWN does not follow a sparsity"):
        benchmark_sensitivity(str(tmp_path / "cfg.yaml"), [])
