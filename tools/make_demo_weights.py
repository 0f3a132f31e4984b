#!/usr/bin/env python
"""Makes the float weights that the demo starts from, out of a checkpoint of their training.

The checkpoint comes from
  python tools/train_net.py --config-file configs/quick_schedules/shapes_mask_rcnn_float.yaml
"""

import argparse

from ptq_det.commands.mistakes import told_in_one_line
from ptq_det.data.weights import WEIGHTS_FOLDER
from ptq_det.training.checkpoint import save_int8_weights
from ptq_det.training.foreign import read_weights

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", default="output/model_final.pth")
    args = parser.parse_args()
    path = WEIGHTS_FOLDER / "shapes_mask_rcnn_float.safetensors"
    with told_in_one_line():
        weights = read_weights(args.checkpoint)
        save_int8_weights(weights, str(path))
    print(f"{path}: {path.stat().st_size} bytes")
