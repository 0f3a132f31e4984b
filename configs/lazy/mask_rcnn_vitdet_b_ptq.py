# Mask R-CNN on a plain ViT-B (ViTDet) by PTQ, on COCO 2017, meant for 8 GPUs; needs timm.
#   python tools/lazyconfig_train_net.py \
#       --config-file configs/lazy/mask_rcnn_vitdet_b_ptq.py --num-gpus 8
# Not trained. Packed in one shot with random weights, for its size: 13.65 MiB.
from functools import partial

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from ptq_det.data.zoo import zoo_config

_side = 1024

model = zoo_config("common/models/mask_rcnn_vitdet.py").model

# Pictures as ViTDet's own config has them: RGB, scaled at random into a square.
dataloader = zoo_config("common/data/coco.py").dataloader
dataloader.train.mapper.image_format = "RGB"
dataloader.train.mapper.recompute_boxes = True  # cropping cuts them
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=_side, target_width=_side),
    L(T.FixedSizeCrop)(crop_size=(_side, _side), pad=False),
]
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=_side, max_size=_side)
]
dataloader.train.total_batch_size = 16

train = zoo_config("common/train.py").train
train.init_checkpoint = (
    "detectron2://ViTDet/COCO/mask_rcnn_vitdet_b/f325346929/model_final_61ccd1.pkl"
)
train.max_iter = 30_000
train.amp.enabled = True

lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=500 / train.max_iter,
    warmup_factor=0.001,
)
optimizer = zoo_config("common/optim.py").AdamW
optimizer.lr = 0.00005
optimizer.params.lr_factor_func = partial(get_vit_lr_decay_rate, num_layers=12, lr_decay_rate=0.7)
optimizer.params.overrides = {"pos_embed": {"weight_decay": 0.0}}

ternary = dict(optimizer="AdamW", sparsity=0.8)
