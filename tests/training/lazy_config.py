"""The lazy config of a narrow Mask R-CNN on a few pictures, for tests."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from tests.lazy_models import narrow_rcnn

model = narrow_rcnn()
model.roi_heads.num_classes = 6

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
for _part, _name in ((dataloader.train, "few_train"), (dataloader.test, "few_val")):
    _part.dataset.names = _name
    _part.mapper.augmentations = [L(T.ResizeShortestEdge)(short_edge_length=64, max_size=64)]
    _part.num_workers = 0
dataloader.train.total_batch_size = 2
dataloader.train.mapper.instance_mask_format = "bitmask"

train = model_zoo.get_config("common/train.py").train
train.update(device="cpu", max_iter=3, output_dir="out", eval_period=0, seed=1)
optimizer = model_zoo.get_config("common/optim.py").SGD
optimizer.lr = 0.0001
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=0.1,
    warmup_factor=0.1,
)
ternary = dict(sparsity=0.7, compensation=1, freeze_start=0.5, require_trained=False)
