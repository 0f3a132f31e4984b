#!/usr/bin/env python
"""The tool ``ptq-det onnx_predict`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.onnx_predict import main

if __name__ == "__main__":
    main()
