"""Fine-tunes and evaluates a ternary model of a lazy config; used like Detectron2's own
lazyconfig_train_net.py.

python tools/lazyconfig_train_net.py --config-file configs/lazy/mask_rcnn_vitdet_b_ptq.py
python tools/lazyconfig_train_net.py --config-file yours.py --resume train.max_iter=1000
python tools/lazyconfig_train_net.py --config-file yours.py --eval-only train.init_checkpoint=W

W is a checkpoint or a packed file. Without a clone: python -m ptq_det.commands.lazyconfig_train_net
"""

from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..training.lazy_config_file import check_lazy_config, read_lazy_config
from ..training.lazy_training import evaluate, train
from .launching import in_processes, told_once
from .mistakes import told_in_one_line

__all__ = ["main"]


def run(args):
    """What each process does."""
    with told_once():
        cfg = read_lazy_config(args.config_file, args.opts)  # lambdas in it cannot be sent
        default_setup(cfg, args)
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="ptq_det")
        return (evaluate if args.eval_only else train)(cfg, args.resume)


def main():
    """Run the tool on the command line's words."""
    parser = default_argument_parser(epilog=__doc__)
    args = parser.parse_args()
    with told_in_one_line():
        cfg = read_lazy_config(args.config_file, args.opts)
        check_lazy_config(cfg, not args.eval_only, args.resume)
    in_processes(run, args, args)


if __name__ == "__main__":
    main()
