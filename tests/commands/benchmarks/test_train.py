from ptq_det.commands.benchmarks import benchmark_train


def test_the_training_benchmark_compares_every_stage(repo):
    config = str(repo / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml")
    result = benchmark_train(config, ["MODEL.DEVICE", "cpu"], (64, 64), batch=1, rounds=2)
    assert set(result["seconds"]) == {"float", "prune", "ternary", "frozen"}
    assert set(result["ratio"]) == {"prune", "ternary", "frozen"}
    assert result["worst_ratio"] == max(result["ratio"].values()) > 0
