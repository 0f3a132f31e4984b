"""Forged packed files: none may crash the reader, read a path, take more than it is allowed, or
give a model that fails at its first picture."""

import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch
from detectron2.utils.file_io import PathManager
from safetensors import SafetensorError
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from ...errors import InputError
from ...files import MIB
from ...inference import load_packed
from ...packing.container import Container
from ..inspection import describe_file
from .forgeries import MARK, forge
from .given import MODULE, Given, module_content

__all__ = ["benchmark_fuzz"]

_PACKAGED = "ptq_det://shapes_mask_rcnn_ptq.safetensors"
_SECONDS, _MEMORY = 2.0, 200 * MIB  # that a refusal may take


def benchmark_fuzz(path: str | None, files: int, workers: int, seed: int) -> dict:
    """Forge packed files from honest ones, load each, and count what became of them.

    All but raw damage have valid digests. Workers are used again for many files, so that what one
    leaves behind meets the next.

    Args:
        path: an honest packed file of a config, best a narrow one; None for the packaged one and
            that of a model that the reader gives, by turns.
        files: how many to forge.
        workers: processes.
        seed: of the forgeries.

    Returns:
        Numbers of files loaded and refused, and the worst seconds and MiB of a refusal.

    Raises:
        RuntimeError: a file crashed a worker, ended in another error than a refusal, made it open a
            forged path, took more than a refusal may, or gave a model that fails at a picture.
    """
    if path is None:
        contents = [Container.read(PathManager.get_local_path(_PACKAGED)), module_content()]
    else:
        contents = [Container.read(path)]
    counts, worst, faults = Counter(), [0.0, 0.0], []
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(contents[i % len(contents)], folder, seed + i) for i in range(files)]
        with multiprocessing.get_context("spawn").Pool(workers, _start) as pool:
            for found in tqdm(pool.imap_unordered(_load, jobs, chunksize=8), "forged", files):
                name, outcome, seconds, memory, number = found
                counts[name, outcome] += 1
                if outcome == "refused":
                    worst = [max(worst[0], seconds), max(worst[1], memory)]
                slow = seconds > _SECONDS or memory > _MEMORY
                if outcome not in ("refused", "loaded") or slow:
                    faults.append(f"{name} {number}: {outcome}, {seconds:.1f} s, {memory} bytes")
    names = sorted({name for name, _ in counts})
    rows = [[name, counts[name, "loaded"], counts[name, "refused"]] for name in names]
    print(tabulate(rows, ["forgery", "loaded", "refused"], tablefmt="github"))
    print(f"worst refusal: {worst[0]:.2f} s, {worst[1] / MIB:.0f} MiB")
    if faults:
        raise RuntimeError(f"{len(faults)} faults:\n" + "\n".join(faults[:20]))
    loaded = sum(count for (_, outcome), count in counts.items() if outcome == "loaded")
    return {
        "files": files,
        "loaded": loaded,
        "refused": files - loaded,
        "worst_seconds": worst[0],
        "worst_mib": worst[1] / MIB,
    }


def _start() -> None:
    """Of each worker: end where a forged path is opened."""

    def watch(event, arguments):
        if event in ("open", "os.open", "socket.connect") and MARK in str(arguments):
            raise RuntimeError(f"{event} of a forged path")

    sys.addaudithook(watch)


def _load(job) -> tuple[str, str, float, int, int]:
    content, folder, number = job
    name, forged = forge(content, number)
    file = Path(folder) / f"{number}.safetensors"
    try:
        forged.write(file)
    except (InputError, ValueError, TypeError, SyntaxError, SafetensorError):
        return name, "refused", 0.0, 0, number  # what cannot be written cannot be read
    if number % 10 == 0:  # raw damage
        data = bytearray(file.read_bytes())
        data[random.Random(number).randrange(len(data))] ^= 1 << number % 8
        file.write_bytes(data)
    before, start = _forget_peak(), time.perf_counter()
    try:
        given = None
        if content.metadata["architecture"] == MODULE:
            given = Given()
            with suppress(InputError):
                describe_file(str(file))  # where nobody gives a model
        model = load_packed(file, "cpu", model=given)
        outcome = "loaded"
    except InputError:
        outcome = "refused"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    seconds, memory = time.perf_counter() - start, max(0, _memory("VmHWM") - before)
    if outcome == "loaded":
        outcome = _run(model)
    file.unlink()
    return name, outcome, seconds, memory, number


def _run(model: nn.Module) -> str:
    """What becomes of a model at a small picture: "loaded", or the error that ends it."""
    if isinstance(model, Given):
        return _tried(model, torch.ones(1, 3, 8, 8))
    mean = getattr(model, "pixel_mean", None)
    has_proposals = getattr(model, "proposal_generator", True) is not None
    if mean is None or not has_proposals:  # a classification network; a Fast R-CNN
        return "loaded"
    image = torch.full((len(mean), 64, 64), 100.0)
    return _tried(model, [{"image": image, "height": 64, "width": 64}])


def _tried(model: nn.Module, inputs) -> str:
    try:
        with torch.no_grad():
            model(inputs)
    except Exception as error:
        return f"at a picture {type(error).__name__}: {str(error)[:200]}"
    return "loaded"


def _forget_peak() -> int:
    """Start the peak of this process's memory anew; bytes in use now."""
    with suppress(OSError):  # elsewhere than on Linux the peak is that of all files so far
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
