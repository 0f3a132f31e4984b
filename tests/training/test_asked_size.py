import os
from pathlib import Path

import pytest
import torch
from detectron2.engine import DefaultTrainer

from ptq_det import PTQHook, pack_model, ternarize
from ptq_det.errors import InputError
from ptq_det.files import MIB
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.sizing.target import keep_size
from ptq_det.ternary.ternarize import ternary_layers
from tests.conftest import trained

pytestmark = pytest.mark.usefixtures("device")


class LateTrainer(DefaultTrainer):
    """A user's own trainer: ternary after a checkpoint is loaded, with the hook behind its own."""

    def __init__(self, cfg):
        super().__init__(cfg)
        self.register_hooks([PTQHook(cfg)])

    @classmethod
    def build_model(cls, cfg):
        return build_float_model(cfg)


def go_on_from(cfg, name):
    Path(cfg.OUTPUT_DIR, "last_checkpoint").write_text(f"{name}.pth")
    return trained(cfg, resume=True)


def test_a_checkpoint_without_zeros_is_not_gone_on_from(sized):
    sized.SOLVER.CHECKPOINT_PERIOD = 2
    trained(sized)
    sized.TERNARY.TARGET_MIB = 0.165
    with pytest.raises(InputError, match=r"a training without TERNARY\.TARGET_MIB"):
        go_on_from(sized, "model_0000001")


@pytest.mark.parametrize("last", [1, 3])
def test_zeros_of_a_checkpoint_are_not_lost(last, sized):
    sized.TERNARY.TARGET_MIB, sized.SOLVER.CHECKPOINT_PERIOD = 0.165, 2
    trained(sized)
    sized.TERNARY.TARGET_MIB, sized.SOLVER.MAX_ITER = 0.0, 6
    if last == 1:
        with pytest.raises(InputError, match=r"of a training with TERNARY\.TARGET_MIB"):
            go_on_from(sized, "model_0000001")
    else:  # its codes are frozen
        go_on_from(sized, "model_0000003")


def test_another_size_is_followed_while_codes_are_not_final(sized):
    sized.TERNARY.TARGET_MIB, sized.SOLVER.CHECKPOINT_PERIOD = 0.18, 2
    trained(sized)
    sized.TERNARY.TARGET_MIB, sized.SOLVER.MAX_ITER = 0.16, 6
    trainer = go_on_from(sized, "model_0000001")
    path = os.path.join(sized.OUTPUT_DIR, "packed.safetensors")
    pack_model(trainer.model, sized, path)
    assert 0.99 * 0.16 <= os.path.getsize(path) / MIB <= 0.16


def test_another_size_that_cannot_be_reached_is_refused(sized):
    sized.TERNARY.TARGET_MIB, sized.SOLVER.CHECKPOINT_PERIOD = 0.18, 2
    trained(sized)
    sized.TERNARY.TARGET_MIB = 0.01
    with pytest.raises(InputError, match=r"99% zeros .* packed file has 0\.\d+ MiB already"):
        go_on_from(sized, "model_0000001")


def test_a_smaller_size_for_final_codes_is_said_to_come_too_late(sized, log):
    sized.TERNARY.TARGET_MIB, sized.SOLVER.CHECKPOINT_PERIOD = 0.18, 2
    trained(sized)
    sized.SOLVER.MAX_ITER = 6
    go_on_from(sized, "model_0000003")
    assert "are final" not in log.text
    sized.TERNARY.TARGET_MIB = 0.16
    go_on_from(sized, "model_0000003")
    assert "TERNARY.TARGET_MIB is 0.16, but the codes of the checkpoint are final" in log.text


def test_zeros_that_a_late_hook_moves_are_in_the_last_checkpoint(sized):
    sized.TERNARY.TARGET_MIB, sized.TERNARY.FREEZE_START = 0.16, 1.0
    sized.TERNARY.SPARSITY, sized.TERNARY.SPARSITY_OVERRIDES = 0.6, [["*.fc1", 0.85]]
    sized.SOLVER.BASE_LR = 0.1
    trainer = LateTrainer(sized)
    trainer.train()
    saved = torch.load(Path(sized.OUTPUT_DIR, "model_final.pth"))["model"]
    layers = ternary_layers(trainer.model)
    assert len({layer.ternary.sparsity for layer in layers.values()}) > 1
    for name, layer in layers.items():
        assert float(saved[f"{name}.sparsity"]) == layer.ternary.sparsity, name


@pytest.mark.parametrize("prune_end, freeze_start", [(0.0, 0.5), (0.0, 1.0), (0.75, 1.0)])
def test_zeros_move_once_more(prune_end, freeze_start, sized, monkeypatch):
    moved = []

    def keep(*args):
        moved.append(None)
        keep_size(*args)

    monkeypatch.setattr("ptq_det.training.asked_size.keep_size", keep)
    sized.TERNARY.PRUNE_END, sized.TERNARY.FREEZE_START = prune_end, freeze_start
    sized.TERNARY.SPARSITY, sized.TERNARY.TARGET_MIB = 0.6, 0.16
    sized.TERNARY.SPARSITY_OVERRIDES = [["*.fpn_lateral2", 0.0]]
    sized.TERNARY.COMPENSATION = 0
    trained(sized)
    assert len(moved) == 1


def test_zeros_that_came_before_the_ternary_layers_are_missed(sized):
    sized.TERNARY.TARGET_MIB, sized.SOLVER.CHECKPOINT_PERIOD = 0.18, 2
    LateTrainer(sized).train()
    Path(sized.OUTPUT_DIR, "last_checkpoint").write_text("model_0000001.pth")
    trainer = LateTrainer(sized)
    trainer.resume_or_load(resume=True)
    with pytest.raises(InputError, match="became ternary after the checkpoint was loaded"):
        trainer.train()


def test_layers_without_a_place_for_zeros_are_refused(sized):
    without = sized.clone()
    sized.TERNARY.TARGET_MIB = 0.18
    trainer = LateTrainer(sized)
    ternarize(trainer.model, without)
    with pytest.raises(InputError, match=r"became ternary without TERNARY\.TARGET_MIB"):
        trainer.train()
    assert trainer.storage.iter == 0
