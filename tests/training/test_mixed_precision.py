import pytest
import torch
from detectron2.engine import AMPTrainer
from detectron2.structures import Keypoints
from detectron2.utils.events import EventStorage

from ptq_det import TernaryTrainer
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.training.mixed_precision import _channels_last, use_bfloat16, use_channels_last


@pytest.fixture
def batch(cfg):
    return next(iter(TernaryTrainer.build_train_loader(cfg)))


def dtypes_of(model, batch):
    """Types of what the first convolution behind the stem and the backbone give."""
    seen = {}
    handles = [
        module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: out}))
        for name, module in {
            "convolution": model.backbone.bottom_up.res2[0].conv3,
            "backbone": model.backbone,
        }.items()
    ]
    with EventStorage():
        losses = model(batch)
    for handle in handles:
        handle.remove()
    return losses, seen["convolution"].dtype, {f.dtype for f in seen["backbone"].values()}


def test_training_runs_in_bfloat16_and_evaluation_does_not(cfg, batch):
    model = build_float_model(cfg).train()
    torch.manual_seed(0)
    exact, *_ = dtypes_of(model, batch)
    use_bfloat16(model)
    torch.manual_seed(0)
    losses, inside, outside = dtypes_of(model, batch)
    assert inside is torch.bfloat16 and outside == {torch.float32}
    for name in ("loss_rpn_cls", "loss_rpn_loc"):  # which boxes the others are of, rounding decides
        assert float(losses[name]) == pytest.approx(float(exact[name]), rel=0.05), name
    assert not torch.is_autocast_enabled("cpu")
    _, inside, outside = dtypes_of(model.eval(), batch)
    assert inside is torch.float32 and outside == {torch.float32}
    features = model.double().backbone(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    assert {f.dtype for f in features.values()} == {torch.float64}  # as packing compares models


def test_an_error_inside_ends_autocast(cfg, batch):
    model = build_float_model(cfg).train()
    use_bfloat16(model)
    del batch[0]["instances"]
    with EventStorage(), pytest.raises(Exception, match=r"instances"):
        model(batch)
    assert not torch.is_autocast_enabled("cpu")


def test_channels_last_changes_no_result(cfg, batch):
    model = build_float_model(cfg).eval()
    with torch.no_grad():
        images = model.preprocess_image(batch).tensor
        before = model.backbone(images)
        use_channels_last(model)
        after = model.backbone(images)
    for name, features in after.items():
        assert features.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(features, before[name], rtol=1e-4, atol=1e-3)


@pytest.fixture
def keypoint_model(cfg):
    """A narrow Keypoint R-CNN, and a batch for it."""
    batch = next(iter(TernaryTrainer.build_train_loader(cfg)))
    for sample in batch:
        instances = sample["instances"]
        instances.remove("gt_masks")
        boxes = instances.gt_boxes.tensor
        points = torch.stack([boxes[:, :2] + 2, boxes[:, 2:] - 2], 1)
        instances.gt_keypoints = Keypoints(
            torch.cat([points, torch.full_like(points, 2)], 2)[..., :3]
        )
    cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON = False, True
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 2
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [8, 8]
    return build_float_model(cfg), batch


@pytest.mark.parametrize("mixed", [False, True])
def test_keypoints_are_trained_in_channels_last(keypoint_model, mixed):
    model, batch = keypoint_model
    use_channels_last(model)
    if mixed:
        use_bfloat16(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = model.roi_heads.keypoint_head.score_lowres.weight.detach().clone()
    with EventStorage():
        losses = model.train()(batch)
    assert float(losses["loss_keypoint"]) > 0
    sum(losses.values()).backward()
    optimizer.step()
    assert not torch.equal(before, model.roi_heads.keypoint_head.score_lowres.weight)
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    with torch.no_grad():
        found = model.eval()(batch)[0]["instances"]
    assert len(found) and found.pred_keypoints.shape[1:] == (2, 3)


def test_trainer_uses_what_its_device_has(cfg, device):
    """bfloat16 on a CPU, float16 with a loss that is scaled on a GPU; codes are frozen in both."""
    cfg.TERNARY.PRUNE_END, cfg.TERNARY.FREEZE_START, cfg.TERNARY.DECAY = 0.0, 0.5, 0.1
    cfg.SOLVER.AMP.ENABLED = True
    cfg.SOLVER.MAX_ITER = 2
    trainer = TernaryTrainer(cfg)
    seen = []
    trainer.model.backbone.bottom_up.res2[0].conv3.register_forward_hook(
        lambda module, args, output: seen.append(output.dtype)
    )
    trainer.train()
    assert seen[0] is {"cpu": torch.bfloat16, "cuda": torch.float16}[device]
    assert isinstance(trainer._trainer, AMPTrainer) == (device == "cuda")
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_levels_of_a_mask_head_are_laid_out_too():
    """As PointRend's takes them."""
    levels = {"p2": torch.rand(1, 4, 6, 6), "boxes": torch.rand(3, 4)}
    found, other = _channels_last(None, (levels, "instances"))
    assert found["p2"].is_contiguous(memory_format=torch.channels_last) and other == "instances"
    torch.testing.assert_close(found, levels)
