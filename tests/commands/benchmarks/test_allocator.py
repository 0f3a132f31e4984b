import pytest
import torch

from ptq_det import pack_model, ternarize
from ptq_det.commands.benchmarks.allocator import StockInJemalloc, jemalloc
from ptq_det.commands.benchmarks.rows import save, stock_rows
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel


@pytest.fixture
def saved(cfg, tmp_path):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "packed.safetensors")
    packed = PackedModel.read(tmp_path / "packed.safetensors")
    save(packed, cfg, str(tmp_path))
    return packed, cfg, str(tmp_path)


@pytest.mark.skipif(jemalloc() is None, reason="jemalloc is not installed")
def test_a_process_of_its_own_times_predictions(saved):
    model = StockInJemalloc(saved[2])
    batch = [{"image": torch.rand(3, 64, 64) * 255, "height": 64, "width": 64}]
    for _ in range(2):
        seconds, parts = model.timed(batch)
        assert 0 < sum(parts.values()) == pytest.approx(seconds)
        assert "backbone and FPN" in parts


def test_without_the_library_the_row_is_left_out(saved, monkeypatch, capsys):
    monkeypatch.setattr("ptq_det.commands.benchmarks.rows.jemalloc", lambda: None)
    assert list(stock_rows(*saved)) == ["stock", "channels-last"]
    assert "Left out: stock, jemalloc: the library is not installed" in capsys.readouterr().out
