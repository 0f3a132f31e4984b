from typing import Literal

import pytest

from ptq_det.errors import InputError
from ptq_det.quantizers import PTQ, QUANTIZER_REGISTRY, ShiftScaler, all_options, options_of
from ptq_det.quantizers.base import Quantizer


class Plain(Quantizer):
    def codes(self, weight, sparsity, threshold=None):
        return weight.sign()


def test_options_are_the_arguments_of_the_constructor():
    options = options_of(PTQ)
    assert list(options) == ["normalize", "scale"]
    assert options["normalize"].default == "filter"
    assert options["normalize"].choices() == ("filter", "layer")
    assert options["normalize"].allowed() == '"filter" or "layer"'
    assert options_of(Plain) == {}
    assert {"match_sparsity", "bits", "sigma", "shift_bits"} <= set(all_options())


def test_what_is_allowed():
    bits = options_of(ShiftScaler)["shift_bits"]
    assert bits.allows(0) and bits.allows(4)
    assert not any(bits.allows(value) for value in (5, True, False, 4.0, "4", None))
    options = all_options()
    assert options["sigma"].allows(1) and options["sigma"].allows(-0.5)
    assert not any(options["sigma"].allows(value) for value in (float("nan"), True, "1"))
    assert options["match_sparsity"].allows(True) and not options["match_sparsity"].allows(1)


def without_default(self, bits):
    pass


def without_kind(self, bits: list = ()):
    pass


def with_others(self, bits: int = 2, **others):
    pass


def with_capitals(self, Bits: int = 2):
    pass


@pytest.mark.parametrize("init", [without_default, without_kind, with_others, with_capitals])
def test_an_argument_that_can_be_no_option_is_named(init):
    with pytest.raises(InputError, match=r"Odd.__init__ has '(Bits|bits|others)'; an option is"):
        options_of(type("Odd", (Plain,), {"__init__": init}))


def test_two_quantizers_cannot_disagree_about_an_option(monkeypatch):
    class Other(Plain):
        def __init__(self, bits: Literal[2, 3] = 2):
            pass

    monkeypatch.setitem(QUANTIZER_REGISTRY._obj_map, "Other", Other)
    with pytest.raises(InputError, match="'Other' has the option 'bits' with another default"):
        all_options()
