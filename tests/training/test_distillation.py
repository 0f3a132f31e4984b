import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage

from ptq_det import TernaryTrainer, ternarize
from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.training.distillation import Distillation, build_teacher

pytestmark = pytest.mark.usefixtures("device")

NAMES = {
    "loss_distill_features",
    "loss_distill_anchors",
    "loss_distill_anchor_deltas",
    "loss_distill_pooled",
    "loss_distill_boxes",
    "loss_distill_masks",
}


@pytest.fixture
def batch(cfg):
    return next(iter(TernaryTrainer.build_train_loader(cfg)))


def losses_of(model, batch):
    torch.manual_seed(0)
    with EventStorage():
        return model.train()(batch)


def teacher_like(model, cfg, tmp_path):
    torch.save({"model": model.state_dict()}, tmp_path / "float.pth")
    cfg.MODEL.WEIGHTS = str(tmp_path / "float.pth")
    return build_teacher(cfg)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_nothing_is_lost_to_an_equal_teacher(norm, cfg, batch, tmp_path):
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = norm
    model = build_float_model(cfg)
    own = losses_of(model, batch)
    teacher = teacher_like(model, cfg, tmp_path)
    weights = {name: value.clone() for name, value in teacher.state_dict().items()}
    distillation = Distillation(model, teacher, 2.0)
    losses = losses_of(model, batch)
    assert set(losses) == set(own) | NAMES
    for name, value in losses.items():
        assert float(value) == pytest.approx(float(own[name]) if name in own else 0, abs=1e-5)
    distillation.remove()
    assert set(losses_of(model, batch)) == set(own)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, weights[name]) or name.endswith("num_batches_tracked")


def test_a_ternary_student_learns_from_its_teacher(cfg, batch, tmp_path):
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "FrozenBN"
    student = build_float_model(cfg)
    teacher = teacher_like(student, cfg, tmp_path)
    ternarize(student, cfg)
    Distillation(student, teacher, 1.0)
    first = losses_of(student, batch)
    assert all(float(first[name].detach()) > 0 for name in NAMES)
    optimizer = torch.optim.AdamW(student.parameters(), 3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        sum(losses_of(student, batch)[name] for name in NAMES).backward()
        optimizer.step()
    last = losses_of(student, batch)
    assert float(last["loss_distill_features"].detach()) < 0.8 * float(
        first["loss_distill_features"].detach()
    )
    assert all(p.grad is None for p in teacher.parameters())


def test_the_weight_multiplies_the_losses(cfg, batch, tmp_path):
    student = build_float_model(cfg)
    teacher = teacher_like(build_float_model(cfg), cfg, tmp_path)
    distillation = Distillation(student, teacher, 1.0)
    once = losses_of(student, batch)
    distillation.remove()
    Distillation(student, teacher, 3.0)
    thrice = losses_of(student, batch)
    for name in NAMES:
        assert float(thrice[name].detach()) == pytest.approx(
            3 * float(once[name].detach()), rel=1e-4
        )


def test_the_trainer_distils(cfg, tmp_path):
    teacher_like(build_float_model(cfg), cfg, tmp_path)
    cfg.TERNARY.DISTILLATION = 0.5
    cfg.SOLVER.MAX_ITER = 2
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    assert isinstance(trainer._trainer, SimpleTrainer)
    trainer.train()
    assert set(trainer.storage.histories()) >= NAMES
    assert not (NAMES & set(losses_of(trainer.model, next(iter(trainer.data_loader)))))


def test_a_teacher_needs_weights(cfg):
    with pytest.raises(InputError, match=r"TERNARY\.DISTILLATION needs a float model"):
        build_teacher(cfg)


def test_a_teacher_without_training_teaches_nothing(cfg, tmp_path):
    classes, cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES, 80
    teacher_like(build_float_model(cfg), cfg, tmp_path)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.TERNARY.REQUIRE_TRAINED, cfg.TERNARY.DISTILLATION = True, 1.0
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    with pytest.raises(InputError, match=r"(?s)cls_score.*learn from no teacher") as error:
        trainer.train()
    assert trainer.storage.iter == 0 and "81, " in str(error.value)


def test_a_cascade_learns_maps_anchors_and_masks_alone(cfg, batch, tmp_path):
    cfg.MODEL.ROI_HEADS.NAME = "CascadeROIHeads"
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    student = build_float_model(cfg)
    own = losses_of(student, batch)
    Distillation(student, teacher_like(build_float_model(cfg), cfg, tmp_path), 1.0)
    losses = losses_of(student, batch)
    assert set(losses) == set(own) | NAMES - {"loss_distill_pooled", "loss_distill_boxes"}


def test_retinanet_learns_scores_and_deltas_of_its_anchors(cfg, repo, device, batch, tmp_path):
    cfg.merge_from_file(str(repo / "configs/quick_schedules/shapes_retinanet_ptq.yaml"))
    cfg.MODEL.DEVICE = device
    student = build_float_model(cfg)
    own = losses_of(student, batch)
    names = {"loss_distill_features", "loss_distill_anchors", "loss_distill_anchor_deltas"}
    Distillation(student, teacher_like(build_float_model(cfg), cfg, tmp_path), 1.0)
    losses = losses_of(student, batch)
    assert set(losses) == set(own) | names
    losses["loss_distill_anchor_deltas"].backward()
    assert student.head.bbox_pred.weight.grad.abs().sum() > 0


def test_boxes_keep_their_places_where_a_teacher_computes_in_bfloat16(cfg, batch, tmp_path):
    student = build_float_model(cfg)
    distillation = Distillation(student, teacher_like(student, cfg, tmp_path), 1.0)
    with torch.autocast(cfg.MODEL.DEVICE, dtype=torch.bfloat16):
        distillation._compare_features(
            student.backbone.train(),
            (student.preprocess_image(batch).tensor,),
            student.backbone(student.preprocess_image(batch).tensor),
        )
    assert {x.dtype for x in distillation._features.values()} == {torch.float32}
