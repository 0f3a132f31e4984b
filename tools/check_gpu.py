#!/usr/bin/env python
"""Checks a machine with a GPU: training, codes, packed files and what a step costs there.

python tools/check_gpu.py                    on the GPU
python tools/check_gpu.py --device cpu       the same where there is none, to see that it runs
"""

from ptq_det.commands.check_gpu import main

if __name__ == "__main__":
    main()
