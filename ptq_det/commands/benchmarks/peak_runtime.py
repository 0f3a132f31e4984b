"""A process that runs an exported model on one picture and prints its peak memory in MiB.

Run as a file, not as a module: it is to have what a device has, so it imports nothing of ptq_det.
"""

import ctypes
import sys

import numpy as np


def main(file: str, picture: str, threads: str) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # as ptq_det.export.predictor has it
    picture = np.load(picture)
    if sys.argv[1] == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.enable_cpu_mem_arena = False
        options.intra_op_num_threads = int(threads)
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        session.run(None, {"picture": picture})
    else:
        import openvino

        settings = {"INFERENCE_NUM_THREADS": int(threads), "INFERENCE_PRECISION_HINT": "f32"}
        openvino.Core().compile_model(file, "CPU", settings)({"picture": picture})
    with open("/proc/self/status") as status:
        print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)


if __name__ == "__main__":
    main(*sys.argv[2:])
