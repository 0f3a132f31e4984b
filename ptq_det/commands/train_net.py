"""Fine-tunes and evaluates a ternary detector; used like Detectron2's own train_net.py."""

from detectron2.engine import default_argument_parser, default_setup, hooks
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..errors import InputError
from ..inference.evaluation import (
    evaluate_with_augmentation,
    load_for_evaluation,
    packed_weights,
)
from ..packing.filled import load_filled
from ..ternary.norms import fold_norms
from ..training.config_file import find_config_file, read_config
from ..training.preflight import preflight
from ..training.resuming import last_checkpoint
from ..training.setting_checks import building
from ..training.trainer import TernaryTrainer
from .inputs import IMPORT
from .launching import in_processes, told_once
from .mistakes import told_in_one_line

__all__ = ["main"]


def setup(args):
    """Read the config and check what it names."""
    args.config_file = find_config_file(args.config_file)  # default_setup prints the file
    cfg = read_config(args.config_file, args.opts)
    last = last_checkpoint(cfg.OUTPUT_DIR) if args.resume else None
    if args.resume and args.eval_only and last is None:
        raise InputError(
            f"--resume evaluates the last checkpoint of OUTPUT_DIR {cfg.OUTPUT_DIR!r}, which has "
            "none; leave it out to evaluate MODEL.WEIGHTS"
        )
    preflight(
        cfg,
        not args.eval_only,
        max(args.num_gpus * args.num_machines, 1),
        last is not None,
        args.check_pictures,
    )
    cfg.freeze()
    return cfg


def model_to_evaluate(cfg, resume):
    last = last_checkpoint(cfg.OUTPUT_DIR) if resume else None
    packed = packed_weights(cfg, last or cfg.MODEL.WEIGHTS)
    if packed is not None:
        return load_for_evaluation(cfg, packed)
    with building("the model"):
        model = TernaryTrainer.build_model(cfg).eval()
    load_filled(model, cfg, last)
    fold_norms(model)
    return model


def evaluate(cfg, resume):
    model = model_to_evaluate(cfg, resume)
    results = TernaryTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(evaluate_with_augmentation(TernaryTrainer, cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def train(cfg, resume):
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    if cfg.TEST.AUG.ENABLED:
        augmented = lambda: evaluate_with_augmentation(TernaryTrainer, cfg, trainer.model)  # noqa: E731
        trainer.register_hooks([hooks.EvalHook(0, augmented)])
    return trainer.train()


def run(args, cfg):
    """What each process does."""
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="ptq_det")
    with told_once():
        return (evaluate if args.eval_only else train)(cfg, args.resume)


def main() -> None:
    """Run by the arguments of the command line."""
    parser = default_argument_parser()
    parser.add_argument(
        "--check-pictures",
        action="store_true",
        help="decode every picture of the data sets before the work starts, not its header alone",
    )
    parser.add_argument("--import", **IMPORT)
    args = parser.parse_args()
    with told_in_one_line():
        cfg = setup(args)
    in_processes(run, args, args, cfg)


if __name__ == "__main__":
    main()
