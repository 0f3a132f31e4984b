"""A part of the table of docs/compatibility.md, which Detectron2's repository is not needed for."""

import re

import pytest

from tests.conftest import REPO

from .entry_points import OWN, STOCK
from .kinds import KINDS
from .table import markdown, rows


@pytest.mark.parametrize("name", ["Keypoint R-CNN", "Panoptic FPN"])
def test_what_the_table_says_of_a_kind(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (kind,) = [kind for kind in KINDS if kind.name == name]
    found = rows([kind], None, tmp_path)
    assert found == {name: dict.fromkeys(OWN, "yes")}


def test_what_does_not_work_has_its_message_below():
    text = markdown({"One": {"`load_packed`": "no such file"}, "Other": {"`load_packed`": "yes"}})
    assert "| [1] |" in text.splitlines()[2] and text.endswith("1. no such file")


def test_the_document_has_all_kinds_and_entry_points():
    text = (REPO / "docs/compatibility.md").read_text()
    table = text.split("<!-- the table -->")[1].split("<!-- its end -->")[0].strip()
    head, _, *lines = table.splitlines()
    assert re.findall(r"[^|]+", head)[1:] == [f" {name} " for name in OWN | STOCK]
    found = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert found == [kind.name for kind in KINDS]
