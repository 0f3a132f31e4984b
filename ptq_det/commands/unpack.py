"""Writes a packed model as a plain Detectron2 checkpoint with ternary values, and its config.

ptq-det unpack model.safetensors model.pth

A stock Detectron2 without ptq_det loads model.pth with model.yaml, which stands beside it.
"""

import argparse
import json
from pathlib import Path

import torch
import yaml

from ..errors import InputError
from ..files import replacing
from ..packing.packed_model import PackedModel
from .mistakes import told_in_one_line

__all__ = ["main"]


def main() -> None:
    """Run by the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packed", metavar="IN", help="packed model")
    parser.add_argument("checkpoint", metavar="OUT", help="checkpoint to write, .pth")
    args = parser.parse_args()
    with told_in_one_line():
        packed = PackedModel.read(args.packed)
        config = Path(args.checkpoint).with_suffix(".yaml")
        text = _config(packed, args.checkpoint)
        if text and config == Path(args.checkpoint):
            raise InputError(f"{config} is where the config goes; name OUT .pth")
        if text and config.exists() and config.read_text() != text:
            raise InputError(f"{config}, where the config goes, is another file; name another OUT")
        weights = packed.state_dict()
        with replacing(args.checkpoint) as scratch:
            torch.save({"model": weights}, scratch)
        if text:
            with replacing(config) as scratch:
                scratch.write_text(text)
            print(f"{config}: its config")
    if any(layer.activation_bits for layer in packed.layers.values()):
        print("Activations are quantized in the file; a plain checkpoint runs them in float.")
    print(f"{args.checkpoint}: {len(weights)} tensors")


def _config(packed, checkpoint):
    """The text of a detector's config, or of the data of a lazy one; others have none."""
    if packed.architecture.is_given:
        data = json.loads(packed.config)
        return yaml.safe_dump({"model": data}, default_flow_style=None) if data else ""
    if not packed.architecture.has_config:
        return ""
    cfg = packed.cfg()
    cfg.pop("TERNARY")
    cfg.MODEL.WEIGHTS = checkpoint
    return cfg.dump()


if __name__ == "__main__":
    main()
