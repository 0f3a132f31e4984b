"""The pages name every option and key there is, quote messages as the code has them, and link to
what exists."""

import argparse
import ast
import re

import pytest
from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser

from ptq_det import add_ternary_config
from ptq_det.quantizers import QUANTIZER_REGISTRY, options_of
from tests.conftest import REPO

USAGE = (REPO / "docs/usage.md").read_text()
TROUBLES = (REPO / "docs/troubleshooting.md").read_text()
TOOLS = sorted((REPO / "tools").glob("*.py"))
PAGES = sorted(
    [
        *(REPO / name for name in ("README.md", "CONTRIBUTING.md", "configs/README.md")),
        *(REPO / "docs").glob("*.md"),
    ]
)
LEAST = 10  # characters but spaces that a quoted message has beside what varies

each_tool = pytest.mark.parametrize("tool", TOOLS, ids=lambda p: p.stem)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(REPO).as_posix())


# ---- Options of the tools ----


def options_of_tool(tool) -> set[str]:
    """The long options that a tool has, ``--help`` aside."""
    code = (REPO / f"ptq_det/commands/{tool.name}").read_text()
    options = {
        argument.value
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant) and str(argument.value).startswith("--")
    }
    if "default_argument_parser" in code:
        for action in default_argument_parser()._actions:
            if not isinstance(action, argparse._HelpAction):
                options |= {name for name in action.option_strings if name.startswith("--")}
    return options


def section(text: str, title: str) -> str:
    """What stands under a heading of second degree."""
    parts = text.split(f"\n## {title}\n")
    assert len(parts) == 2, title
    return parts[1].split("\n## ")[0]


def rows(text: str):
    """The cells of each row of the tables in a text."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def commands(text: str):
    """Each call of a tool in the blocks of a page: its name and the words behind it."""
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"\btools/(\w+)\.py\b(.*)", line.split("  #")[0])
            if found:
                yield found.group(1), found.group(2).split()


@each_tool
def test_usage_has_all_options_of_each_tool_and_no_others(tool):
    tables = rows(section(USAGE, tool.name))
    told = {name for cells in tables for name in re.findall(r"--[a-z][\w-]*", cells[0])}
    assert told == options_of_tool(tool)


@each_page
def test_commands_name_tools_and_options_that_there_are(page):
    for name, words in commands(page.read_text()):
        tool = REPO / f"tools/{name}.py"
        assert tool.exists(), name
        given = {word.split("=")[0].strip("[]") for word in words if re.match(r"\[?--[a-z]", word)}
        assert given <= options_of_tool(tool), (name, given)


# ---- Keys of TERNARY ----


def own_keys() -> dict:
    """Keys and defaults of ``cfg.TERNARY``, without those of quantizers from outside."""
    cfg = get_cfg()
    add_ternary_config(cfg)
    foreign = {
        name.upper()
        for _, kind in QUANTIZER_REGISTRY
        if not kind.__module__.startswith("ptq_det.")
        for name in options_of(kind)
    }
    return {key: value for key, value in cfg.TERNARY.items() if key not in foreign}


def test_usage_has_every_key_with_its_default():
    table = rows(section(USAGE, "Keys of TERNARY"))
    told = {cells[0].strip("`"): cells[1] for cells in table if re.match("`[A-Z_]+`$", cells[0])}
    keys = own_keys()
    assert told.keys() == keys.keys()
    for key, default in keys.items():
        shown = f'"{default}"' if isinstance(default, str) else str(default)
        assert told[key] == f"`{shown}`", key


@each_page
def test_keys_that_a_page_names_exist(page):
    if page.name == "extending.md":  # it adds a key of its own
        return
    named = set(re.findall(r"\bTERNARY\.([A-Z_]+)\b", page.read_text()))
    assert named <= own_keys().keys()


# ---- Messages ----


def text_of(node: ast.AST) -> str | None:
    """The text of an expression of strings, with … for what varies; None for another one."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(text_of(value) or "…" for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = text_of(left), text_of(right)
            return None if sides == (None, None) else "".join(side or "…" for side in sides)
    return None


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def texts_of(path) -> list[str]:
    """All texts in a module, each on one line; those next to each other are joined."""
    found = map(text_of, ast.walk(ast.parse(path.read_text())))
    return [plain(text) for text in found if text]


def quotes() -> list[tuple[str, str]]:
    """Messages in troubleshooting.md and where they come from: `message` ([name](../path.py))."""
    pattern = r"`([^`\n]+)` \(\[[\w.]+\]\(\.\./(ptq_det/[\w/]+\.py)\)\)"
    return re.findall(pattern, TROUBLES)


def is_in(quote: str, texts: list[str]) -> bool:
    """Whether one text has all parts of a quote, in order."""
    pattern = ".*".join(re.escape(part) for part in plain(quote).split("…"))
    return any(re.search(pattern, text) for text in texts)


def test_texts_are_joined_as_python_does(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('f(f"{n} layers "\n  "are frozen:\\n  " + "\\n".join(x)\n  + " lower it")\n')
    texts = texts_of(path)
    assert is_in("… layers are frozen:…lower it", texts)
    assert not is_in("lower it … layers", texts) and not is_in("layers is frozen", texts)


def test_there_are_many_quotes():
    assert len(set(quotes())) >= 40


@pytest.mark.parametrize(("quote", "place"), quotes())
def test_quoted_messages_are_in_the_code(quote, place):
    assert len(re.sub(r"[\s…]", "", quote)) >= LEAST, "too little to find it by"
    assert is_in(quote, texts_of(REPO / place))


def test_the_steps_that_change_weights_name_files_that_there_are():
    table = list(rows(section(TROUBLES, "What changes weights, in order")))
    files = {file for cells in table for file in re.findall(r"`([\w/]+\.py)`", cells[3])}
    assert len(table) > 12 and len(files) > 8
    assert all((REPO / "ptq_det" / file).is_file() for file in files)


# ---- Links and paths ----


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    names = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", name).replace(" ", "-") for name in names}


def expanded(path: str) -> list[str]:
    """A path with {a,b} in it, as a shell expands it."""
    found = re.search(r"\{([^{}]*)\}", path)
    if not found:
        return [path]
    before, after = path[: found.start()], path[found.end() :]
    return [name for part in found.group(1).split(",") for name in expanded(before + part + after)]


def test_braces_are_expanded_as_a_shell_does():
    assert expanded("a_{b,c}_{1,2}.py") == ["a_b_1.py", "a_b_2.py", "a_c_1.py", "a_c_2.py"]


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(REPO), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text()), target


@each_page
def test_tools_and_configs_that_are_named_exist(page):
    pattern = r"(?<![\w/}])(?:tools|configs)/[\w/{},.-]+?\.(?:py|yaml)\b"
    for found in re.findall(pattern, page.read_text()):
        for name in expanded(found):
            assert (REPO / name).is_file(), name


# ---- Python ----


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", USAGE, re.DOTALL | re.M))
def test_snippets_are_python_and_import_what_there_is(code):
    tree = ast.parse(code)
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    exec(compile(ast.Module(imports, type_ignores=[]), "usage.md", "exec"), {})
