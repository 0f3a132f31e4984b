"""Fine-tunes and evaluates a ternary model of a lazy config; used like Detectron2's own
lazyconfig_train_net.py.

python tools/lazyconfig_train_net.py --config-file configs/lazy/mask_rcnn_vitdet_b_ptq.py
python tools/lazyconfig_train_net.py --config-file yours.py --resume train.max_iter=1000
python tools/lazyconfig_train_net.py --config-file yours.py --eval-only train.init_checkpoint=W

W is a checkpoint or a packed file. Without a clone: python -m ptq_det.commands.lazyconfig_train_net
"""

import sys
import time

from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessExitedException

from ..errors import InputError
from ..training.lazy_config_file import check_lazy_config, read_lazy_config
from ..training.lazy_training import evaluate, train
from ..training.processes import leave_process_group
from .mistakes import told_in_one_line

__all__ = ["main"]


def run(args):
    """What each process does."""
    try:
        cfg = read_lazy_config(args.config_file, args.opts)  # lambdas in it cannot be sent
        default_setup(cfg, args)
        setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name="ptq_det")
        results = (evaluate if args.eval_only else train)(cfg, args.resume)
    except InputError as error:
        if not comm.is_main_process():
            time.sleep(60)  # the first process says it for all, and ends them
        print(f"\nerror: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    leave_process_group()
    return results


def main():
    """Run the tool on the command line's words."""
    parser = default_argument_parser(epilog=__doc__)
    args = parser.parse_args()
    with told_in_one_line():
        cfg = read_lazy_config(args.config_file, args.opts)
        check_lazy_config(cfg, not args.eval_only, args.resume)
    try:
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessExitedException as error:  # a worker has said why
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
