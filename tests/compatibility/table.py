"""Makes the table of docs/compatibility.md: which kinds of models work with which entry points.

python -m tests.compatibility.table --detectron2 FOLDER [--kinds NAME ...]

FOLDER is a clone of Detectron2, for its scripts and projects. What fails is printed with its
message; the log of each entry point lies in the folder that is printed at the end.
"""

import argparse
import contextlib
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .entry_points import OF_DETECTRON2, OWN, STOCK, Case
from .kinds import KINDS
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
            return text.replace(f"{case.folder}/", "").splitlines()[0][:300]
    return "yes"


def rows(kinds, detectron2: Path | None, folder: Path) -> dict[str, dict[str, str]]:
    """What each entry point made of each kind."""
    register_pictures(folder)
    for split in ("train", "val"):
        write_proposals(folder / f"{split}.pkl", split)
    picture = next((folder / "val").glob("*"))
    found = {}
    for kind in kinds:
        if kind.project and detectron2 is None:
            continue
        own = folder / kind.name.replace(" ", "_").replace(",", "")
        own.mkdir()
        case = Case(kind.cfg(detectron2, folder), own, detectron2, picture)
        found[kind.name] = {}
        for name, entry_point in (OWN if detectron2 is None else OWN | STOCK).items():
            start = time.perf_counter()
            result = run(entry_point, case, own / "log.txt")
            if result != "yes" and name in OF_DETECTRON2:
                in_float = run(entry_point, case.in_float(), own / "log_in_float.txt")
                result = result if in_float == "yes" else f"{in_float} (in float too)"
            found[kind.name][name] = result
            print(f"{kind.name} | {name} | {result} | {time.perf_counter() - start:.0f} s")
    return found


def markdown(found: dict[str, dict[str, str]]) -> str:
    """A table whose cells say yes or point to the message below it."""
    names = list(OWN | STOCK)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    messages: list[str] = []
    for kind, results in found.items():
        cells = []
        for name in names:
            text = results.get(name, "")
            if text not in ("yes", ""):
                if text not in messages:
                    messages.append(text)
                text = f"[{messages.index(text) + 1}]"
            cells.append(text)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    notes = [f"{i}. {text}" for i, text in enumerate(messages, start=1)]
    return "\n".join([*lines, "", *notes])


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
    kinds = [kind for kind in KINDS if not args.kinds or kind.name in args.kinds]
    table = markdown(rows(kinds, args.detectron2, folder))
    print(f"\n{table}\n\nlogs: {folder}/*/log.txt")
    if args.write:
        before, rest = args.write.read_text().split(_MARKS[0])
        behind = rest.split(_MARKS[1])[1]
        args.write.write_text(f"{before}{_MARKS[0]}\n{table}\n{_MARKS[1]}{behind}")


if __name__ == "__main__":
    main()
