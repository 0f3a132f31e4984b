"""Checks a machine with a GPU: training, codes, packed files and what a step costs there.

python tools/check_gpu.py                    on the GPU
python tools/check_gpu.py --device cpu       the same where there is none, to see that it runs

Prints tables and one line of JSON; exit status 1 where something is not as it should be.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.utils.logger import setup_logger
from tabulate import tabulate
from torch import Tensor, nn

from ..data.weights import CONFIGS_FOLDER, WEIGHTS_FOLDER
from ..errors import InputError
from ..inference import load_packed
from ..packing.packed_model import PackedModel
from ..quantizers import QUANTIZER_REGISTRY, Quantizer, build_quantizer, options_of
from ..ternary.ternarize import unwrap
from ..training.checkpoint import load_weights
from ..training.config_file import read_config
from ..training.setting_checks import check_model_settings
from .benchmarks.machine import cpu_name
from .gpu_steps import measure_steps
from .gpu_trainings import (
    NARROW,
    register_pictures,
    train_in_two_processes,
    train_resumed,
    tune,
)
from .mistakes import positive, told_in_one_line

__all__ = ["check_gpu", "main"]


_DEFAULTS = {  # of sizes and counts, as long as a user may wait
    "cuda": {
        "config_file": str(CONFIGS_FOLDER / "mask_rcnn_R50_ptq.yaml"),
        "size": (800, 1333),
        "batch": 2,
        "rounds": 5,
        "iterations": 40,
    },
    "cpu": {
        "config_file": NARROW,
        "size": (128, 128),
        "batch": 1,
        "rounds": 2,
        "iterations": 6,
    },
}
_LOSSES = ("first_loss", "last_loss")
_SPARSITY = 0.8
_SHARE = 5  # one of so many layers is quantized, to compare codes
_CODES = 1e-4  # share of the codes that may differ: those right at a threshold
_OUTPUTS = 1e-3  # relative difference of what a packed model gives, in float32
_RESUMED = {"cpu": 0.0, "cuda": 0.05}  # of weights; GPUs add up in any order


def check_gpu(
    device: str, config_file: str, size: tuple[int, int], batch: int, rounds: int, iterations: int
) -> dict:
    """Run all checks, print their tables, and give what is in them.

    Args:
        device: "cuda", or "cpu".
        config_file: config whose steps are measured.
        size: height and width of the pictures of these steps, in pixels.
        batch: their number a step.
        rounds: steps of each kind.
        iterations: of the fine-tunings.

    Returns:
        Results by check, and under ``failed`` what is not as it should be, in words.

    Raises:
        InputError: PyTorch finds no such device, or the config cannot be used.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch finds no GPU here; --device cpu runs the same on the CPU")
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    cfg = read_config(config_file, ["MODEL.DEVICE", device])
    cfg.SOLVER.BASE_LR = 0.0  # untrained weights would diverge; a step takes as long without moving
    check_model_settings(cfg)
    torch.manual_seed(0)
    weights = load_weights(str(WEIGHTS_FOLDER / "shapes_mask_rcnn_float.safetensors"))
    result = {"device": device, "name": name, "torch": torch.__version__}
    some = [weight for weight in weights.values() if weight.dim() > 1][::_SHARE]
    result["codes"] = compare_codes(some, device)
    with tempfile.TemporaryDirectory() as folder:
        register_pictures(Path(folder))
        tuned = {kind: tune(kind, device, iterations, folder) for kind in ("float", "ternary")}
        result["fine_tuning"] = {kind: figures for kind, (_, figures) in tuned.items()}
        trainer, _ = tuned["ternary"]
        result["resumed"] = train_resumed(trainer)
        result["processes"] = train_in_two_processes(device, iterations, folder)
        result["packing"] = compare_packed(unwrap(trainer.model), trainer.cfg, device)
    result["steps"] = measure_steps(cfg, size, batch, rounds)
    result |= {"size": list(size), "batch": batch, "failed": _failed(result)}
    print(_tables(result))
    return result


def compare_codes(weights: list[Tensor], device: str) -> dict[str, dict[str, int]]:
    """How many codes of each quantizer, with each choice of its options, differ between CPU and
    device: ``differ`` of ``weights``."""
    weights = [*weights, torch.randn(300, 1000)]  # large enough for a quantile from a sample
    found = {}
    for name, quantizer in _quantizers():
        differ = 0
        for weight in weights:
            filters = weight.float().flatten(1)
            codes = quantizer.codes(filters, _SPARSITY)
            differ += int((quantizer.codes(filters.to(device), _SPARSITY).cpu() != codes).sum())
        found[name] = {"differ": differ, "weights": sum(w.numel() for w in weights)}
    return found


def compare_packed(model: nn.Module, cfg: CfgNode, device: str) -> dict:
    """Pack a model from a device and from the CPU, load the file to both, and compare.

    Returns:
        ``codes``, how many differ between the two files, and the largest relative difference of a
        feature map on pictures: ``file``, of the file to the model, both on the device, and
        ``device``, of the file on the device to the file on the CPU.
    """
    packed = PackedModel.of(model, cfg)
    path = f"{cfg.OUTPUT_DIR}/check.safetensors"
    packed.write(path)
    loaded = {each: load_packed(path, each) for each in ("cpu", device)}
    batches = list(itertools.islice(build_detection_test_loader(cfg, cfg.DATASETS.TEST[0]), 4))
    model.eval()
    models = {"model": model, "device": loaded[device], "cpu": loaded["cpu"]}
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # as exact as on a CPU
        outputs = {name: [_features(x, batch) for batch in batches] for name, x in models.items()}
    from_cpu = PackedModel.of(model.cpu(), cfg)
    return {
        "codes": sum(
            int((layer.values != from_cpu.layers[name].values).sum())
            for name, layer in packed.layers.items()
            if layer.is_chosen
        ),
        "file": _difference(outputs["device"], outputs["model"]),
        "device": _difference(outputs["device"], outputs["cpu"]),
    }


def _quantizers():
    for name, kind in QUANTIZER_REGISTRY:
        options = options_of(kind)
        for values in itertools.product(*(option.choices() for option in options.values())):
            chosen: Quantizer = build_quantizer(name, **dict(zip(options, values, strict=True)))
            yield " ".join(map(str, (name, *values))), chosen


@torch.no_grad()
def _features(model: nn.Module, batch: list[dict]) -> list[Tensor]:
    features = model.backbone(model.preprocess_image(batch).tensor)
    return [each.float().cpu() for each in features.values()]


def _difference(found: list[list[Tensor]], wanted: list[list[Tensor]]) -> float:
    pairs = zip(itertools.chain(*found), itertools.chain(*wanted), strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def _failed(result: dict) -> list[str]:
    """What is not as it should be, in words."""
    failed = []
    for name, codes in result["codes"].items():
        if codes["differ"] > _CODES * codes["weights"]:
            failed.append(f"{codes['differ']} codes of {name} differ between CPU and device")
    for kind, figures in result["fine_tuning"].items():
        if not all(map(math.isfinite, figures.values())):
            failed.append(f"the {kind} fine-tuning has figures that are no numbers")
    resumed, processes = result["resumed"], result["processes"]
    if not resumed["differs"] <= _RESUMED[result["device"]]:
        failed.append(f"the resumed fine-tuning has other weights: {resumed['differs']:.2g}")
    if processes["codes"]:
        failed.append(f"{processes['codes']} codes differ between two processes")
    if not all(math.isfinite(x[key]) for x in (resumed, processes) for key in _LOSSES):
        failed.append("the resumed fine-tuning, or that of two processes, has no numbers")
    packing = result["packing"]
    if packing["codes"]:
        failed.append(f"{packing['codes']} codes differ when packed from the CPU")
    if not max(packing["file"], packing["device"]) <= _OUTPUTS:
        failed.append("the packed file gives something else than the model, or on the CPU")
    for precision in ("float32", "AMP"):
        waits = {x["weights"]: x["waits"] for x in result["steps"] if x["precision"] == precision}
        more = [kind for kind, count in waits.items() if count > waits["float"]]
        if more:
            failed.append(f"{precision}: the host waits more often than in float: {waits}")
    return failed


def _tables(result: dict) -> str:
    def table(headers, rows):
        return tabulate(rows, headers, tablefmt="github", floatfmt=".4g", missingval="")

    tuning = [[kind, *figures.values()] for kind, figures in result["fine_tuning"].items()]
    resumed, processes = result["resumed"], result["processes"]
    tuning += [
        [f"ternary, from iteration {resumed['start']} on", *(resumed[key] for key in _LOSSES)],
        [f"ternary, two processes ({processes['backend']})", *(processes[key] for key in _LOSSES)],
    ]
    codes = [[name, *each.values()] for name, each in result["codes"].items()]
    floats = {x["precision"]: x["seconds"] for x in result["steps"] if x["weights"] == "float"}
    steps = [
        [x["precision"], x["weights"], x["seconds"], x["seconds"] / floats[x["precision"]],
         x["mib"], x["waits"]]
        for x in result["steps"]
    ]  # fmt: skip
    height, width = result["size"]
    packing = result["packing"]
    said = "; ".join(result["failed"]) or "all as it should be"
    return "\n\n".join(
        [
            f"\n{result['name']}, PyTorch {result['torch']}. Fine-tuning with AMP:",
            table(["weights", "first loss", "last loss", "box AP", "mask AP"], tuning),
            f"Resumed, its weights differ by {resumed['differs']:.1g} from those that were not "
            f"stopped; {processes['codes']} codes differ between the two processes.",
            f"Codes on the CPU and on {result['device']}:",
            table(["quantizer and options", "differ", "of"], codes),
            f"Packed: {packing['codes']} codes differ from those packed on the CPU; outputs differ "
            f"by {packing['file']:.1g} from the model's, and by {packing['device']:.1g} between "
            f"CPU and {result['device']}.",
            f"A step, {result['batch']} pictures of {height} x {width}:",
            table(["precision", "weights", "s", "over float", "peak MiB", "host waits"], steps),
            f"Checks: {said}.",
        ]
    )


def main() -> None:
    """The command line of tools/check_gpu.py."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument(
        "--config-file", help="of the steps; mask_rcnn_R50_ptq.yaml, the narrow one on a CPU"
    )
    parser.add_argument(
        "--size", type=positive, nargs=2, metavar=("H", "W"),
        help="of the steps' pictures; 800 1333 on a GPU, 128 128 on a CPU",
    )  # fmt: skip
    parser.add_argument("--batch", type=positive, help="pictures a step; 2, 1 on a CPU")
    parser.add_argument("--rounds", type=positive, help="steps of each kind; 5, 2 on a CPU")
    parser.add_argument("--iterations", type=positive, help="of the fine-tunings; 40, 6 on a CPU")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    defaults = _DEFAULTS[args.device]
    chosen = {key: getattr(args, key) or default for key, default in defaults.items()}
    chosen["size"] = tuple(chosen["size"])
    if args.device == "cpu":
        torch.set_num_threads(1)  # threads wait for each other on a busy machine, in vain here
    for logger in ("detectron2", "ptq_det"):
        setup_logger(name=logger)
    with told_in_one_line():
        result = check_gpu(args.device, **chosen)
    print(json.dumps(result))
    sys.exit(1 if result["failed"] else 0)


if __name__ == "__main__":
    main()
