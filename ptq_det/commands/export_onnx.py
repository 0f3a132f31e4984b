"""Exports a packed detector to ONNX.

ptq-det export_onnx model.safetensors model.onnx
ptq-det export_onnx calibrated.safetensors model.onnx --int8
ptq-det export_onnx calibrated.safetensors calibrated.graph.onnx --int8 --weightless

The model takes a picture (uint8, height x width x 3, scaled, in the channel order that its metadata
state) and gives boxes, scores, classes and 28 x 28 masks; tools/onnx_predict.py runs it without
PyTorch. What is exported is compared with the packed model before it is written.
"""

import argparse
import importlib.util
import os
import sys
import warnings

from ..errors import InputError
from .mistakes import told_in_one_line

__all__ = ["main"]


def main() -> None:
    """Run by the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packed", metavar="FILE", help="packed detector")
    parser.add_argument("output", metavar="OUT", help="ONNX model to write")
    parser.add_argument(
        "--int8", action="store_true", help="compute on integers; FILE has to be calibrated"
    )
    parser.add_argument(
        "--size", nargs="+", default=["dynamic"], metavar=("H", "W"),
        help="height and width of the picture that the model takes; default: dynamic, any",
    )  # fmt: skip
    parser.add_argument(
        "--vnni", action="store_true",
        help="with --int8: the target multiplies without saturating, so 8 bits for all weights",
    )  # fmt: skip
    parser.add_argument(
        "--weightless", action="store_true",
        help="write the graph alone, to go with FILE to a device, which fills it",
    )  # fmt: skip
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    with told_in_one_line():
        needed = ("onnx", "onnxruntime", "torch", "detectron2")
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"{' and '.join(missing)} not installed: pip install -e '.[onnx]', and Detectron2 "
                "as the README has it"
            )
        from ..export import export_onnx

        if args.vnni and not args.int8:
            raise InputError("--vnni is about integers; give --int8 too")
        size = _size(args.size)
        export_onnx(args.packed, args.output, args.int8, size, args.vnni, args.weightless)
    print(f"{args.output}: {os.path.getsize(args.output)} bytes, compared with {args.packed}")
    sys.exit(0)


def _size(words):
    if words == ["dynamic"]:
        return None
    if len(words) != 2 or not all(
        word.isascii() and word.isdigit() and int(word) > 0 for word in words
    ):
        raise InputError(f"--size {' '.join(words)}; give height and width in pixels, or dynamic")
    return int(words[0]), int(words[1])


if __name__ == "__main__":
    main()
