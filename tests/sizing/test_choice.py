import math

import numpy as np
import pytest

from ptq_det.sizing.choice import (
    FARTHEST,
    choose,
    least_error,
    lower_hull,
    meet,
    predicted_bytes,
    shifted,
)
from ptq_det.sizing.sensitivity import LayerSensitivity

SPARSITIES = tuple(float(s) for s in np.linspace(0.4, 0.95, 12))


def parabola(name, weight, count=1000, center=0.4):
    """Bytes fall by one a zero; the error is a parabola of them."""
    errors = tuple(weight * (s - center) ** 2 for s in SPARSITIES)
    return LayerSensitivity(
        name, count, SPARSITIES, errors, tuple(count * (1 - s) for s in SPARSITIES)
    )


def test_layers_pay_the_same_error_for_a_byte():
    layers = [parabola("a", 1.0), parabola("b", 3.0)]
    # w (s − 0.4) is the same, and the zeros sum up to 2 − 1.0: s − 0.4 is 0.15 and 0.05.
    found = choose(layers, 1000)
    assert found == pytest.approx({"a": 0.55, "b": 0.45}, abs=0.005)
    assert predicted_bytes(layers, found) == pytest.approx(1000, rel=1e-6)


@pytest.mark.parametrize("budget", [300, 700, 1100])
def test_no_other_choice_of_as_many_bytes_has_less_error(budget):
    layers = [parabola("a", 1.0), parabola("b", 5.0), parabola("c", 0.2)]
    found = choose(layers, budget)
    assert predicted_bytes(layers, found) == pytest.approx(budget, rel=1e-6)

    def error(values):
        curves = zip(layers, values, strict=True)
        return sum(np.interp(s, each.sparsities, each.errors) for each, s in curves)

    own = [found[each.name] for each in layers]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        for step in (-0.03, 0.03):
            other = list(own)
            other[i] += step
            other[j] -= step
            if all(SPARSITIES[0] <= s <= SPARSITIES[-1] for s in other):
                assert error(other) > error(own) - 1e-4


def test_budgets_beyond_the_curves_end_at_their_ends():
    layers = [parabola("a", 1.0), parabola("b", 3.0)]
    assert choose(layers, 0) == pytest.approx({"a": 0.95, "b": 0.95})
    assert choose(layers, 10_000) == pytest.approx({"a": 0.4, "b": 0.4})


def test_more_bytes_that_help_nothing_are_not_taken():
    layer = parabola("a", 1.0, center=0.6)
    assert least_error([layer]) == {"a": pytest.approx(0.6)}
    assert choose([layer], 10_000)["a"] == pytest.approx(0.6, abs=0.03)


def test_the_hull_leaves_out_what_lies_above_it():
    layer = LayerSensitivity("a", 4, (0.4, 0.5, 0.6, 0.7), (0.0, 2.5, 2.0, 4.0), (40, 30, 20, 10))
    assert lower_hull(layer) == [0, 2, 3]


def test_shifts_are_of_log_odds():
    assert shifted(0.5, 0.0) == 0.5
    assert shifted(0.5, math.log(3)) == pytest.approx(0.75)
    assert shifted(shifted(0.9, 0.3), -0.3) == pytest.approx(0.9)
    assert shifted(0.0, 2.0) == 0.0


def clamped(shift):
    """Bytes of layers that stop at 400 and at 2000 of them, and have 1000 to start with."""
    return round(min(2000, max(400, 1000 * math.exp(-shift))))


@pytest.mark.parametrize("aim", [410, 500, 900, 1000, 1100, 1990])
def test_a_size_is_met(aim):
    shift, found = meet(clamped, 1000, aim, 4)
    assert abs(found - aim) <= 4 and found == clamped(shift)


@pytest.mark.parametrize("aim", [1, 300, 395, 2010, 2100, 10_000, 10**9])
def test_a_size_that_nothing_gives_is_approached(aim):
    shift, found = meet(clamped, 1000, aim, 4)
    assert found == clamped(shift) == (400 if aim < 400 else 2000)
    assert abs(shift) <= FARTHEST


def test_a_size_is_met_where_bytes_hardly_change_at_first():
    shift, found = meet(lambda x: round(200 + 800 * math.exp(-(max(0, x) ** 4))), 1000, 500, 4)
    assert 0 < shift < 2 and abs(found - 500) <= 4
