"""Makes the float weights that the demo starts from, out of a checkpoint of their training.

The checkpoint comes from
  ptq-det train_net --config-file configs/quick_schedules/shapes_mask_rcnn_float.yaml
"""

import argparse

from ..data.weights import WEIGHTS_FOLDER
from ..training.checkpoint import save_int8_weights
from ..training.foreign import read_weights
from .mistakes import told_in_one_line

__all__ = ["main"]


def main() -> None:
    """Run by the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="output/model_final.pth")
    args = parser.parse_args()
    path = WEIGHTS_FOLDER / "shapes_mask_rcnn_float.safetensors"
    with told_in_one_line():
        weights = read_weights(args.checkpoint)
        save_int8_weights(weights, str(path))
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
