"""Makes the table of docs/compatibility.md: which kinds of models work with which entry points.

python -m tests.compatibility.table --detectron2 FOLDER [--kinds NAME ...]

FOLDER is a clone of Detectron2, for its scripts and projects. What fails is printed with its
message; the log of each entry point lies in the folder that is printed at the end.
"""

import argparse
import contextlib
import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ptq_det.errors import InputError
from tests.conftest import REPO

from .entry_points import ALSO_IN_FLOAT, OWN, STOCK, Case
from .kinds import KINDS, Kind
from .lazy import LAZY_ENTRY_POINTS, LAZY_KINDS, TRAINS_LAZILY, LazyCase
from .pictures import register_pictures, write_proposals

_MARKS = ("<!-- the table -->", "<!-- its end -->")


def run(entry_point: Callable[[Case], None], case: Case, log: Path) -> str:
    """``yes``, or the message of what went wrong."""
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            entry_point(case)
        except Exception as error:
            traceback.print_exc(file=file)
            text = str(error).strip() or type(error).__name__
            if isinstance(error.__cause__, SystemExit):
                file.flush()
                said = [line for line in log.read_text().splitlines() if "error: " in line]
                text = said[-1].partition("error: ")[2] if said else text
            return _first_line(text, case)
    return "yes"


def _first_line(text: str, case: Case) -> str:
    """Of a message, without what is another in each run and on each machine."""
    for folder in (case.folder, case.detectron2, REPO):
        text = text.replace(f"{folder}/", "")
    return re.sub(r"(_mangle|patch|Instances)_?\d+", r"\1", text.splitlines()[0]).rstrip(" :")


def prepare(folder: Path) -> None:
    """Draw the pictures, and what else models read."""
    register_pictures(folder)
    for split in ("train", "val"):
        write_proposals(folder / f"{split}.pkl", split)


def cases(
    kinds: list[Kind], detectron2: Path | None, folder: Path
) -> Iterator[tuple[str, Case | str]]:
    """A case of each kind, or why there is none; those of projects where there is Detectron2's
    repository."""
    picture = next((folder / "val").glob("*"))
    for kind in kinds:
        if detectron2 is not None or not kind.project:
            try:
                cfg = kind.cfg(detectron2, folder)
            except InputError as error:
                yield kind.name, str(error)
            else:
                yield kind.name, Case(cfg, own_folder(folder, kind.name), detectron2, picture)


def lazy_cases(names: Iterable[str], detectron2: Path | None, folder: Path):
    """The same of lazy configs."""
    picture = next((folder / "val").glob("*"))
    for name in names:
        if detectron2 is not None or not LAZY_KINDS[name].project:
            yield name, LazyCase(name, own_folder(folder, f"lazy {name}"), detectron2, picture)


def own_folder(folder: Path, name: str) -> Path:
    """A folder for a kind."""
    own = folder / re.sub(r"\W+", "_", name)
    own.mkdir()
    return own


def results(
    named: Iterable[tuple[str, Case | str]], entry_points: dict
) -> dict[str, dict[str, str]]:
    """What each entry point made of each kind."""
    found = {}
    for kind, case in named:
        found[kind] = {}
        if isinstance(case, str):
            found[kind] = dict.fromkeys(entry_points, case)
            print(f"{kind} | {case}")
            continue
        for name, entry_point in entry_points.items():
            start = time.perf_counter()
            result = run(entry_point, case, case.folder / "log.txt")
            if result != "yes" and name in ALSO_IN_FLOAT | TRAINS_LAZILY:
                in_float = run(entry_point, case.in_float(), case.folder / "log_in_float.txt")
                result = result if in_float == "yes" else f"{in_float} (in float too)"
            found[kind][name] = result
            print(f"{kind} | {name} | {result} | {time.perf_counter() - start:.0f} s")
    return found


def markdown(found: dict[str, dict[str, str]], names: Iterable[str]) -> str:
    """A table whose cells say yes or point to the message below it."""
    names = list(names)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    messages: list[str] = []
    for kind, of_kind in found.items():
        cells = []
        for name in names:
            text = of_kind.get(name, "")
            if text not in ("yes", ""):
                if text not in messages:
                    messages.append(text)
                text = f"[{messages.index(text) + 1}]"
            cells.append(text)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    notes = [f"{i}. {text}" for i, text in enumerate(messages, start=1)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detectron2", type=Path, help="a clone of Detectron2's repository")
    parser.add_argument("--kinds", nargs="*", help="rows of the table; all by default")
    parser.add_argument("--write", type=Path, help="the document whose table is replaced")
    args = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    folder = Path(tempfile.mkdtemp(prefix="compatibility"))
    prepare(folder)
    kinds = [kind for kind in KINDS if not args.kinds or kind.name in args.kinds]
    lazy = [name for name in LAZY_KINDS if not args.kinds or name in args.kinds]
    own, lazily = (OWN | STOCK), dict(LAZY_ENTRY_POINTS)
    if args.detectron2 is None:
        own, lazily = OWN, {n: e for n, e in lazily.items() if "stock" not in n}
    tables = [
        markdown(results(cases(kinds, args.detectron2, folder), own), OWN | STOCK),
        markdown(results(lazy_cases(lazy, args.detectron2, folder), lazily), LAZY_ENTRY_POINTS),
    ]
    table = "\n\n".join(tables)
    print(f"\n{table}\n\nlogs: {folder}/*/log.txt")
    if args.write:
        before, rest = args.write.read_text().split(_MARKS[0])
        behind = rest.split(_MARKS[1])[1]
        args.write.write_text(f"{before}{_MARKS[0]}\n{table}\n{_MARKS[1]}{behind}")


if __name__ == "__main__":
    main()
