"""The tools by their names: ``ptq-det TOOL …``, or ``python -m ptq_det.commands TOOL …``."""

import argparse
import sys
from importlib import import_module

__all__ = ["TOOLS", "main"]

TOOLS = {
    "train_net": "fine-tune a ternary detector, pack it and evaluate the file; evaluate weights",
    "lazyconfig_train_net": "the same for a lazy config",
    "pack": "pack a checkpoint into one file; calibrate it for engines on integers",
    "measure_size": "where the bytes of a model are; what is in a packed file",
    "demo": "draw what a packed model finds in pictures and videos; the whole path",
    "unpack": "write a packed file as a plain checkpoint of Detectron2",
    "compare": "fine-tune one config in several ways; a table of AP and size",
    "export_onnx": "export a packed detector to ONNX",
    "onnx_predict": "run an exported detector on pictures, without PyTorch",
    "benchmark": "times, sizes and differences, each beside something else",
    "check_gpu": "a short fine-tuning on a GPU, and what a step costs there",
    "make_demo_weights": "make the float weights that the demo starts from",
}


def main() -> None:
    """Run the tool that the first word of the command line names, by the words behind it."""
    parser = argparse.ArgumentParser(
        prog="ptq-det",
        usage="ptq-det TOOL ...\n       ptq-det TOOL --help",
        epilog="tools:\n" + "\n".join(f"  {name:21} {what}" for name, what in TOOLS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tool", choices=TOOLS, metavar="TOOL", help="one of those below")
    tool = parser.parse_args(sys.argv[1:2]).tool
    sys.argv = [f"ptq-det {tool}", *sys.argv[2:]]
    try:
        command = import_module(f"ptq_det.commands.{tool}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "ptq_det"):
            raise
        parser.error(f"{tool} needs {missing}, which is not installed; README.md, Install")
    command.main()


if __name__ == "__main__":
    main()
