"""Runs an exported detector on pictures, without PyTorch: numpy, Pillow and onnxruntime.

python -m ptq_det.commands.onnx_predict model.onnx picture.jpg folder/ --output found/
python -m ptq_det.commands.onnx_predict model.onnx folder/ --annotations annotations.json
python -m ptq_det.commands.onnx_predict model.safetensors folder/ --output found/

A packed file is decoded once, into a cache, by its graph (model.graph.onnx beside it, from
tools/export_onnx.py --weightless); that needs safetensors and constriction too. --annotations
evaluates on the pictures of a folder by pycocotools.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from ..errors import InputError
from ..export.pictures import (
    average_precision,
    described,
    draw,
    find_pictures,
    read_annotations,
    results_of,
    write_json,
)
from ..export.predictor import OnnxPredictor, decoded, give_back_memory
from .mistakes import told_in_one_line

__all__ = ["main"]


def main() -> None:
    """Run by the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="ONNX model, or packed file")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="pictures or folders")
    parser.add_argument("--output", help="folder for drawings and results.json")
    parser.add_argument("--annotations", help="COCO's annotations to evaluate with, of one folder")
    parser.add_argument("--threshold", type=float, default=0.5, help="of drawings; default 0.5")
    parser.add_argument("--graph", help="of a packed file; default: beside it, MODEL.graph.onnx")
    parser.add_argument("--threads", type=int, help="of ONNX Runtime")
    parser.add_argument("--min-size", type=int, help="shorter side that pictures are scaled to")
    args = parser.parse_args()
    give_back_memory()
    with told_in_one_line():
        model = decoded(args.model, args.graph)
        for name, value in (("--threads", args.threads), ("--min-size", args.min_size)):
            if value is not None and not 0 < value <= 10_000:
                raise InputError(f"{name} {value}; give a number from 1 to 10000")
        predictor = OnnxPredictor(model, args.threads, min_size=args.min_size)
        (_evaluate if args.annotations else _predict)(predictor, args)


def _evaluate(predictor: OnnxPredictor, args: argparse.Namespace) -> None:
    if len(args.pictures) != 1 or not Path(args.pictures[0]).is_dir():
        raise InputError("--annotations needs the one folder that their pictures are in")
    pictures, categories = read_annotations(args.annotations, predictor.classes)
    found = results_of(predictor, pictures, args.pictures[0], categories)
    results = list(itertools.chain(*_shown(found, "Evaluating", len(pictures))))
    if args.output:
        Path(args.output).mkdir(parents=True, exist_ok=True)
        write_json(Path(args.output) / "results.json", results)
    figures = average_precision(args.annotations, results)
    print("AP: " + (", ".join(f"{k} {v[0]:.2f}" for k, v in figures.items()) or "nothing found"))


def _predict(predictor: OnnxPredictor, args: argparse.Namespace) -> None:
    paths = find_pictures(args.pictures)
    if args.output and any(each.resolve().parent == Path(args.output).resolve() for each in paths):
        raise InputError(f"--output {args.output} is where pictures are; name another folder")
    results, failed = [], 0
    if args.output:
        Path(args.output).mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(_shown(paths, "Predicting", len(paths))):
        try:
            with Image.open(path) as picture:
                everything = predictor(picture)
                found = everything.above(args.threshold)
                drawn = draw(picture, found, predictor.name_of) if args.output else None
        except InputError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            print(f"\n{path}: it cannot be read ({error})", file=sys.stderr)
            failed += 1
            continue
        results += described(everything, path, predictor.name_of)
        if drawn is not None:
            drawn.save(Path(args.output) / f"{number:05d}_{path.stem}.jpg", quality=90)
        else:
            names = (predictor.name_of(label) for label in found.classes.tolist())
            texts = map("{} {:.2f}".format, names, found.scores.tolist())
            print(f"{path}: {', '.join(texts) or 'nothing'}")
    if args.output:
        write_json(Path(args.output) / "results.json", results)
        print(f"{args.output}: {len(paths) - failed} drawings, {len(results)} detections")
    sys.exit(1 if failed else 0)


def _shown(things: Iterable, what: str, count: int) -> Iterator:
    """Things with a bar of progress on a terminal."""
    wide = sys.stderr.isatty() and count > 1
    for number, thing in enumerate(things, 1):
        yield thing
        if wide:
            bar = "#" * (30 * number // count)
            print(f"\r{what} [{bar:30}] {number}/{count}", end="", file=sys.stderr, flush=True)
    if wide:
        print(file=sys.stderr)


if __name__ == "__main__":
    main()
