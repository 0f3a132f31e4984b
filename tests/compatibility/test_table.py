"""A part of the tables of docs/compatibility.md, without Detectron2's repository."""

import re

import pytest

from tests.conftest import REPO

from .entry_points import OWN, STOCK
from .kinds import KINDS
from .lazy import LAZY_ENTRY_POINTS, LAZY_KINDS
from .table import cases, lazy_cases, markdown, prepare, results


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["Keypoint R-CNN", "Panoptic FPN"])
def test_what_the_table_says_of_a_kind(name, folder):
    kinds = [kind for kind in KINDS if kind.name == name]
    assert results(cases(kinds, None, folder), OWN) == {name: dict.fromkeys(OWN, "yes")}


def test_what_it_says_of_a_lazy_one(folder):
    own = {name: each for name, each in LAZY_ENTRY_POINTS.items() if "stock" not in name}
    found = results(lazy_cases(["ViTDet"], None, folder), own)
    assert found == {"ViTDet": dict.fromkeys(own, "yes")}


def test_what_does_not_work_has_its_message_below():
    found = {"One": {"load": "no such file"}, "Other": {"load": "yes"}}
    text = markdown(found, ["load", "unpack"])
    assert text.splitlines()[2] == "| One | [1] |  |" and text.endswith("1. no such file")


def test_the_document_has_all_kinds_and_entry_points():
    text = (REPO / "docs/compatibility.md").read_text()
    tables = text.split("<!-- the table -->")[1].split("<!-- its end -->")[0]
    heads, rows = [], []
    for line in tables.splitlines():
        cells = re.findall(r"[^|]+", line)
        if line.startswith("| |"):
            heads.append([cell.strip() for cell in cells[1:]])
        elif line.startswith("| "):
            rows.append(cells[0].strip())
    assert heads == [list(OWN | STOCK), list(LAZY_ENTRY_POINTS)]
    assert rows == [*(kind.name for kind in KINDS), *LAZY_KINDS]
