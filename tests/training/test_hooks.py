import json
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage

from ptq_det import PTQHook, TernaryTrainer
from ptq_det.errors import InputError, UntrainedLayersError
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.schedule import Stage
from ptq_det.ternary.ternarize import ternary_layers

pytestmark = pytest.mark.usefixtures("device")


class PlainTrainer(DefaultTrainer):
    """A user's own trainer, which knows nothing of ternary weights."""

    def build_writers(self):
        return []


def codes_of(model):
    return {n: layer.codes_and_value()[0] for n, layer in ternary_layers(model).items()}


def test_works_with_a_default_trainer(cfg):
    trainer = PlainTrainer(cfg)
    parameters = [id(p) for p in trainer.model.parameters()]
    trainer.register_hooks([PTQHook(cfg, period=2)])
    trainer.train()
    assert [id(p) for p in trainer.model.parameters()] == parameters
    codes = torch.cat([c.flatten() for c in codes_of(trainer.model).values()])
    assert float((codes == 0).float().mean()) == pytest.approx(0.8, abs=0.01)
    latest = {k: v for k, (v, _) in trainer.storage.latest().items()}
    assert latest["ternary/sparsity"] == pytest.approx(0.8, abs=0.01)
    assert 0.5 < latest["ternary/bits_per_weight"] < 1.58
    assert latest["ternary/discrepancy"] == pytest.approx(0, abs=1e-5)  # frozen: w is ternary
    assert latest["ternary/sign_flips"] < 1e-4  # a scale near 0 may still change its sign
    told = json.loads(Path(cfg.OUTPUT_DIR, "ternary_statistics.json").read_text())
    assert told["layers"].keys() == codes_of(trainer.model).keys()
    assert told["all"]["sparsity"] == latest["ternary/sparsity"]


def test_stages_run_in_order_with_a_rising_sparsity(cfg):
    seen = []

    class Watched(PTQHook):
        def before_step(self):
            super().before_step()
            layer = self._layers["roi_heads.box_head.fc1"]
            value = layer.forward_weight()
            kept = value[value != 0].abs()
            zeros = float((value == 0).float().mean())
            seen.append((layer.ternary.stage, zeros, len(kept.unique()) <= len(value)))

    trainer = PlainTrainer(cfg)
    trainer.register_hooks([Watched(cfg)])
    trainer.train()
    stages = [stage for stage, _, _ in seen]
    assert stages == [Stage.PRUNE] * 4 + [Stage.TERNARY] * 5 + [Stage.FROZEN]
    expected = [0.8 * (1 - (1 - i / 4) ** 3) for i in range(4)] + [0.8] * 6
    assert [zeros for _, zeros, _ in seen] == pytest.approx(expected, abs=1e-3)
    assert [one_scale for _, _, one_scale in seen] == [False] * 4 + [True] * 6


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("quantizer", ["PTQ", "TWN", "TTQ"])
def test_frozen_codes_stay_while_scales_move(cfg, quantizer, optimizer):
    cfg.TERNARY.QUANTIZER = quantizer
    cfg.TERNARY.OPTIMIZER = optimizer
    cfg.TERNARY.FREEZE_START = 0.5
    snapshots = []

    class Watched(PTQHook):
        def before_step(self):
            super().before_step()
            fc = self._layers["roi_heads.box_head.fc1"]
            snapshots.append((codes_of(self.trainer.model), fc.forward_weight().detach().clone()))

    trainer = TernaryTrainer(cfg)
    trainer._hooks = [h for h in trainer._hooks if not isinstance(h, PTQHook)]
    trainer.register_hooks([Watched(cfg)])
    trainer.resume_or_load(resume=False)
    trainer.train()
    frozen = snapshots[5:]
    for codes, _ in frozen:
        assert all(torch.equal(codes[n], frozen[0][0][n]) for n in codes)
    assert any(not torch.equal(snapshots[4][0][n], snapshots[1][0][n]) for n in frozen[0][0])
    assert not torch.equal(frozen[0][1], frozen[-1][1])


def test_the_final_checkpoint_holds_ternary_values_for_stock_detectron2(cfg):
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    stock = build_float_model(cfg)
    DetectionCheckpointer(stock).load(f"{cfg.OUTPUT_DIR}/model_final.pth")
    for name, layer in ternary_layers(trainer.model).items():
        weight = stock.get_submodule(name).weight
        torch.testing.assert_close(weight, layer.forward_weight().detach())
        assert float((weight == 0).float().mean()) > 0.5


def test_metrics_reach_the_json_file(cfg):
    cfg.SOLVER.MAX_ITER = 20
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    with open(f"{cfg.OUTPUT_DIR}/metrics.json") as file:
        last = json.loads(file.readlines()[-1])
    assert last["ternary/sparsity"] == pytest.approx(0.8, abs=0.01)
    assert {"ternary/discrepancy", "ternary/sign_flips", "ternary/bits_per_weight"} <= set(last)


def test_untrained_layers_stop_the_training(cfg):
    cfg.TERNARY.REQUIRE_TRAINED = True
    trainer = TernaryTrainer(cfg)
    with pytest.raises(UntrainedLayersError, match=r"roi_heads\.box_head\.fc1"):
        trainer.resume_or_load(resume=False)
    with pytest.raises(UntrainedLayersError), EventStorage():
        trainer.train()


def test_a_learned_scale_must_be_in_the_optimizer(cfg):
    class Late(PlainTrainer):
        @classmethod
        def build_model(cls, cfg):
            return build_float_model(cfg)  # which the hook makes ternary

    cfg.TERNARY.QUANTIZER = "TTQ"
    trainer = Late(cfg)
    trainer.register_hooks([PTQHook(cfg)])
    with pytest.raises(InputError, match=r"not in the optimizer.*TernaryTrainer"):
        trainer.train()


@pytest.mark.parametrize(("decay", "scale"), [(0.1, 512.0), (0.0, 1.0)])
def test_a_decay_is_scaled_with_the_loss(decay, scale, cfg):
    cfg.TERNARY.DECAY = decay
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    hook = next(h for h in trainer._hooks if isinstance(h, PTQHook))
    hook.before_train()
    trainer.iter = 0

    class Scaler:
        def get_scale(self):
            return 512.0

    trainer._trainer.grad_scaler = Scaler()
    hook.before_step()
    assert {x.ternary.decay.loss_scale for x in ternary_layers(trainer.model).values()} == {scale}


@pytest.mark.parametrize(("norm", "said"), [("FrozenBN", True), ("BN", False)])
def test_frozen_norms_are_warned_of(cfg, norm, said, log):
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = norm
    cfg.SOLVER.MAX_ITER = 1
    TernaryTrainer(cfg).train()
    assert ("set MODEL.RESNETS.NORM BN" in log.text) == said


def test_frozen_norms_are_found_behind_layers_that_do_not_hold_them(cfg, log):
    cfg.MODEL.BACKBONE.NAME = "build_mobilenet_v2_fpn_backbone"
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM = "FrozenBN", "BN"
    cfg.SOLVER.MAX_ITER = 1
    TernaryTrainer(cfg).train()
    assert "ternary layers (backbone.bottom_up.features" in log.text


def test_what_the_trainer_does_not_do_is_said(cfg, log):
    cfg.TERNARY.OPTIMIZER, cfg.TERNARY.DISTILLATION, cfg.SOLVER.MAX_ITER = "AdamW", 1.0, 1
    trainer = PlainTrainer(cfg)
    trainer.register_hooks([PTQHook(cfg)])
    trainer.train()
    assert "OPTIMIZER AdamW (it has SGD) and TERNARY.DISTILLATION asks for" in log.text
    log.clear()
    cfg.TERNARY.DISTILLATION = 0.0
    TernaryTrainer(cfg).train()
    assert "This trainer does not do" not in log.text


def test_a_network_threshold_follows_a_fused_optimizer_s_steps(cfg):
    cfg.TERNARY.THRESHOLD, cfg.TERNARY.PRUNE_END, cfg.TERNARY.COMPENSATION = "network", 0.0, 0
    cfg.TERNARY.OPTIMIZER, cfg.TERNARY.FREEZE_START, cfg.SOLVER.BASE_LR = "AdamW", 1.0, 0.02
    seen = []

    class Watched(PTQHook):
        def before_step(self):
            super().before_step()
            network = self._layers["roi_heads.box_head.fc1"].ternary.network
            held = network._shared()
            seen.append((held, network._compute()))

    trainer = TernaryTrainer(cfg)
    trainer._hooks = [h for h in trainer._hooks if not isinstance(h, PTQHook)]
    trainer.register_hooks([Watched(cfg)])
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert all(held == computed for held, computed in seen)
    assert len({held for held, _ in seen}) > 1


@pytest.mark.parametrize("kind", ["clip at 0", "clip not finite", "inputs not finite"])
def test_useless_activations_end_the_training_with_the_layer_s_name(cfg, kind):
    cfg.TERNARY.ACTIVATION_BITS = 4
    trainer = TernaryTrainer(cfg)
    hook = PTQHook(cfg, period=2)
    hook.trainer, hook._layers = trainer, ternary_layers(trainer.model)
    trainer.iter, x = 0, torch.rand(3, 32, device=cfg.MODEL.DEVICE)
    pact = hook._layers["roi_heads.box_head.fc2"].pact.train()
    pact(x)
    hook.after_step()  # between two measurements
    trainer.iter = 1
    hook.before_step()
    pact(x)
    hook._refuse_useless_activations()
    hook.before_step()
    with torch.no_grad():
        pact.clip.fill_({"clip at 0": -0.1, "clip not finite": torch.nan}.get(kind, 1.0))
    pact(x / 0 if kind == "inputs not finite" else x)
    message = r"activations of 1 layers .* iteration 1 \(roi_heads\.box_head\.fc2: .*BASE_LR"
    with pytest.raises(InputError, match=message):
        hook.after_step()
