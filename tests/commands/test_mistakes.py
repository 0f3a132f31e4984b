from argparse import ArgumentTypeError

import pytest

from ptq_det.commands.mistakes import positive, told_in_one_line
from ptq_det.errors import EngineError


@pytest.mark.parametrize("kind", [EngineError, FileNotFoundError])
def test_a_user_s_mistake_is_one_line_and_status_2(kind, capsys):
    with pytest.raises(SystemExit) as end, told_in_one_line():
        raise kind("no such thing")
    assert end.value.code == 2
    assert capsys.readouterr().err == "\nerror: no such thing\n"


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), told_in_one_line():
        raise ZeroDivisionError


def test_numbers_above_0():
    assert positive("12") == 12
    for text in ("0", "-1", "1.5", "", "a", "²"):
        with pytest.raises(ArgumentTypeError, match="is no whole number above 0"):
            positive(text)
