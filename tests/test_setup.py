"""What the package imports is what its installation asks for."""

import ast
import re
import sys

import pytest

from tests.conftest import REPO

FILES = sorted((REPO / "ptq_det").rglob("*.py"))
NAMES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}  # on PyPI
ALSO = {"detectron2"}  # which PyPI does not have; the extra has what it needs


def requirements() -> dict[str, set[str]]:
    """Names of what an installation asks for, in lower case; by extra, under "" without one."""
    (call,) = (
        node
        for node in ast.walk(ast.parse((REPO / "setup.py").read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    given = {each.arg: each.value for each in call.keywords}
    listed = {
        "": ast.literal_eval(given["install_requires"]),
        **ast.literal_eval(given["extras_require"]),
    }
    return {
        extra: {re.match(r"[\w.-]+", each).group().lower() for each in names}
        for extra, names in listed.items()
    }


def imported(nodes) -> set[str]:
    """What is imported from outside, by its name on PyPI."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return {NAMES.get(name, name).lower() for name in found - sys.stdlib_module_names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_what_is_imported_is_asked_for(path):
    asked = requirements()
    tree = ast.parse(path.read_text())
    tools = {name for extra in ("demo", "onnx", "benchmark", "runtimes") for name in asked[extra]}
    assert imported(ast.walk(tree)) <= asked[""] | tools | ALSO
    if path.relative_to(REPO / "ptq_det").parts[0] not in ("commands", "export"):
        assert imported(tree.body) <= asked[""] | ALSO  # without any extra


def test_nothing_is_asked_for_that_is_not_imported():
    used = set().union(*(imported(ast.walk(ast.parse(path.read_text()))) for path in FILES))
    assert requirements()[""] <= used


def test_it_is_seen_where_something_is_not_asked_for():
    tree = ast.parse("import os\nimport cv2.gapi\nfrom yaml import safe_load\nfrom . import codes")
    assert imported(tree.body) == {"opencv-python-headless", "pyyaml"}
