import pytest
import torch

from ptq_det import pack_model, ternarize
from ptq_det.commands.benchmarks import benchmark_inference
from ptq_det.commands.benchmarks.allocator import jemalloc
from ptq_det.errors import InputError
from ptq_det.kernels import why_no_kernels
from ptq_det.modeling.meta_arch import build_float_model


def test_every_engine_is_timed_and_weighed(cfg, tmp_path, capsys):
    cfg.DATASETS.TEST = ("few_val",)
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    threads = torch.get_num_threads()
    result = benchmark_inference(
        str(tmp_path / "m.safetensors"), "few_val", [(64, 64), (32, 64)], 1, 1, True, []
    )
    assert torch.get_num_threads() == threads
    sparse = ["sparse"] if why_no_kernels() is None else []
    here = [] if jemalloc() is None else ["stock, jemalloc"]
    engines = ["stock", "channels-last", *here, "float", "int8", *sparse]
    for figures in ("latency_ms", "peak_mib", "installed_mib", "body_ms"):
        assert list(result[figures]) == engines
    assert list(result["ap"]) == [name for name in engines if name not in here]
    off = result["body_error"]
    assert list(off) == list(result["ap"]) and off["stock"] < 1e-4 and off["float"] == 0
    assert 1e-4 < off["int8"] < 0.3
    times = result["latency_ms"]
    assert list(result["speedup_backbone"]) == engines
    for name, ratio in result["speedup"].items():
        assert ratio == pytest.approx(times["stock"] / times[name])
    assert all(100 < mib < 10_000 for mib in result["peak_mib"].values())
    assert set(result["ap"]["int8"]) == {"bbox", "segm"}
    assert isinstance(result["vnni"], bool) and result["cpu"]
    printed = capsys.readouterr().out
    assert ("Left out" in printed) == (not sparse or not here)
    assert "Pictures of 32 x 64" in printed and "pooling for masks" in printed


def test_an_engine_that_cannot_run_the_file_is_left_out_with_its_reason(cfg, tmp_path, capsys):
    cfg.MODEL.FPN.FUSE_TYPE = "avg"
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, tmp_path / "m.safetensors")
    path = str(tmp_path / "m.safetensors")
    result = benchmark_inference(path, "few_val", [(64, 64)], 1, 1, False, [])
    here = [] if jemalloc() is None else ["stock, jemalloc"]
    assert list(result["latency_ms"]) == ["stock", "channels-last", *here, "float"]
    assert "Left out: the engine int8 cannot run" in capsys.readouterr().out


def test_runtimes_stand_beside_the_engines(cfg, tmp_path):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    path = tmp_path / "m.safetensors"
    pack_model(model.eval(), cfg, path)
    result = benchmark_inference(str(path), "few_val", [(64, 64)], 1, 1, False, [], True)
    rows = {"onnxruntime float", "onnxruntime int8"}
    assert rows <= result["latency_ms"].keys() and rows <= result["speedup"].keys()
    assert result["peak_mib"]["onnxruntime int8"] < result["peak_mib"]["int8"]
    assert not rows & result["speedup_backbone"].keys()
    off = result["body_error"]
    assert rows <= result["body_ms"].keys() and off["onnxruntime float"] < 1e-4
    assert 1e-4 < off["onnxruntime int8"] < 0.5
    with pytest.raises(InputError, match=r"leave out MODEL\.DEVICE"):
        overrides = ["MODEL.DEVICE", "cpu"]
        benchmark_inference(str(path), "few_val", [(64, 64)], 1, 1, False, overrides, True)
