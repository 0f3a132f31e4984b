#!/usr/bin/env python
"""The tool ``ptq-det export_onnx`` where there is a clone; ``--help`` tells what it does."""

from ptq_det.commands.export_onnx import main

if __name__ == "__main__":
    main()
