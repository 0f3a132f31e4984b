import pytest

from ptq_det.ternary.schedule import Stage, pruning_ratio, stage_at, stage_starts


def test_stages_follow_each_other():
    stages = [stage_at(i, 10, 0.4, 0.9).value for i in range(10)]
    assert stages == ["prune"] * 4 + ["ternary"] * 5 + ["frozen"]
    assert stage_starts(10, 0.4, 0.9) == (4, 9)


def test_a_stage_can_be_left_out():
    assert {stage_at(i, 10, 0.0, 1.0) for i in range(10)} == {Stage.TERNARY}
    assert {stage_at(i, 10, 0.0, 0.0) for i in range(10)} == {Stage.FROZEN}


def test_ratio_is_cubic():
    assert pruning_ratio(0, 10, 0.4) == 0
    assert pruning_ratio(1, 10, 0.4) == pytest.approx(1 - 0.75**3)
    assert pruning_ratio(2, 10, 0.4) == pytest.approx(0.875)
    assert [pruning_ratio(i, 10, 0.4) for i in (4, 5, 9)] == [1, 1, 1]
    assert pruning_ratio(0, 10, 0.0) == 1
