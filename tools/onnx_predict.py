#!/usr/bin/env python
"""Runs an exported detector on pictures, without PyTorch: numpy, Pillow and onnxruntime.

python tools/onnx_predict.py model.onnx picture.jpg folder/ --output found/

The same as `python -m ptq_det.commands.onnx_predict`, which needs no clone; --help tells more.
"""

from ptq_det.commands.onnx_predict import main

if __name__ == "__main__":
    main()
