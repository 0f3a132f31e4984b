# Mask R-CNN R50-FPN of Detectron2's new baselines by PTQ, on COCO 2017, meant for 8 GPUs.
#   python tools/lazyconfig_train_net.py \
#       --config-file configs/lazy/mask_rcnn_R_50_FPN_ptq.py --num-gpus 8
# Not trained. Packed in one shot with random weights, for its size: 5.42 MiB.
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from ptq_det.data.zoo import zoo_config

_name = "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ"
_base = zoo_config(f"{_name}.py")
model, dataloader, train = _base.model, _base.dataloader, _base.train
train.init_checkpoint = f"detectron2://{_name}/42047764/model_final_bb69de.pkl"

dataloader.train.total_batch_size = 16
train.max_iter = 30_000
train.ddp.fp16_compression = False

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=500 / train.max_iter,
    warmup_factor=0.001,
)
optimizer = zoo_config("common/optim.py").AdamW
optimizer.lr = 0.00005  # as in configs/mask_rcnn_R50_ptq.yaml
optimizer.weight_decay = 0.0001

ternary = dict(
    optimizer="AdamW",
    sparsity=0.7,
    # The largest layers bear the most zeros, 1 x 1 convolutions of few inputs the fewest.
    sparsity_overrides=[
        ["backbone.bottom_up.res3.*conv3", 0.5],
        ["backbone.bottom_up.res4.*conv2", 0.8],
        ["backbone.bottom_up.res4.*conv3", 0.55],
        ["backbone.bottom_up.res5.*", 0.88],
        ["backbone.bottom_up.res5.*conv3", 0.75],
        ["backbone.fpn*", 0.55],
        ["roi_heads.box_head.fc1", 0.92],
        ["roi_heads.mask_head.*", 0.6],
    ],
)
