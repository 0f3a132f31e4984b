import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from ptq_det import TernaryTrainer, load_packed

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("precise", [False, True])
def test_the_checkpoint_and_the_file_are_the_same_model(precise, cfg):
    cfg.DATASETS.TEST = ("few_val",)
    cfg.TERNARY.PRUNE_END, cfg.TERNARY.FREEZE_START, cfg.SOLVER.MAX_ITER = 0.0, 0.5, 4
    cfg.TEST.PRECISE_BN.ENABLED, cfg.TEST.PRECISE_BN.NUM_ITER = precise, 2
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    model = TernaryTrainer.build_model(cfg).eval()
    DetectionCheckpointer(model).load(f"{cfg.OUTPUT_DIR}/model_final.pth")
    packed = load_packed(f"{cfg.OUTPUT_DIR}/model_final.safetensors", cfg.MODEL.DEVICE)
    x = torch.rand(1, 3, 64, 64, device=cfg.MODEL.DEVICE) * 2 - 1
    with torch.no_grad():
        for name, expected in packed.backbone(x).items():
            found = model.backbone(x)[name]
            # Float32's own error: the mean of a norm may be far larger than what it lets through.
            assert float((found - expected).norm() / expected.norm()) < 2e-4, name
