"""A room imports only from rooms above it, in the order that docs/architecture.md states."""

import ast
import re

import pytest

from tests.conftest import REPO

PACKAGE = REPO / "ptq_det"
FILES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN = {  # what must stay importable without these
    "quantizers": {"detectron2"},
    "kernels": {"detectron2", "torch"},
    "commands/__main__.py": {"detectron2", "torch"},
    "commands/mistakes.py": {"detectron2", "torch"},
    "commands/onnx_predict.py": {"detectron2", "torch", "onnx"},
    "packing/__init__.py": {"detectron2", "torch"},
    "packing/codec.py": {"detectron2", "torch"},
    "packing/container.py": {"detectron2", "torch"},
    "packing/packed_layer.py": {"detectron2", "torch"},
    "packing/integers.py": {"detectron2", "torch"},
    **{
        f"export/{name}.py": {"detectron2", "torch", "onnx"}
        for name in (
            "__init__",
            "decode",
            "operators",
            "pasting",
            "pictures",
            "predictor",
            "weights",
            "wire",
        )
    },
}


def rooms() -> list[str]:
    """Names of the rooms in the order of the table, from the top."""
    text = (REPO / "docs/architecture.md").read_text()
    table = text[text.index("| room |") :].split("\n\n")[0]
    return [re.match(r"\| `([a-z_]+)", line).group(1) for line in table.splitlines()[2:]]


def room_of(path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Absolute module names, with those of a package's parts that it imports by name."""
    package = path.relative_to(REPO).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_every_module_is_in_a_room_of_the_page():
    found = {room_of(path) for path in FILES} - {"__init__"}
    assert found == set(rooms()) and len(rooms()) == len(set(rooms()))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_knows_only_those_above_it(path):
    order = rooms()
    own = room_of(path)
    if own == "__init__":
        return  # the front door knows all
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in ("tools", "tests"), f"{path.name} imports {name}"
        if parts[0] == "ptq_det" and len(parts) > 1:
            assert parts[1] in order, f"{path.name} imports {name}"
            assert order.index(parts[1]) <= order.index(own), (
                f"{own}/ imports {name}, a room below it"
            )


@pytest.mark.parametrize("place", FORBIDDEN)
def test_what_does_without_torch_or_detectron2_imports_neither(place):
    target = PACKAGE / place
    for path in [target] if target.is_file() else sorted(target.rglob("*.py")):
        found = {name.split(".")[0] for name in imports(path)}
        assert not found & FORBIDDEN[place], path


def test_the_check_finds_an_import_from_below(tmp_path, monkeypatch):
    bad = tmp_path / "ptq_det/ternary/bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("from ..training.hooks import PTQHook\n")
    monkeypatch.setattr("tests.test_rooms.REPO", tmp_path)
    monkeypatch.setattr("tests.test_rooms.PACKAGE", tmp_path / "ptq_det")
    monkeypatch.setattr("tests.test_rooms.rooms", lambda: ["ternary", "training"])
    with pytest.raises(AssertionError, match="a room below it"):
        test_a_room_knows_only_those_above_it(bad)
