import json
import math
import os
import socket
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import launch
from detectron2.utils import comm

from ptq_det import TernaryTrainer, pack_model
from ptq_det.errors import InputError
from ptq_det.files import MIB
from ptq_det.packing.packed_model import PackedModel
from ptq_det.sizing import target as target_module
from ptq_det.ternary.ternarize import ternary_layers
from ptq_det.training.processes import leave_process_group
from tests.conftest import trained

pytestmark = pytest.mark.usefixtures("device")


def size_of(trainer) -> float:
    path = os.path.join(trainer.cfg.OUTPUT_DIR, "packed.safetensors")
    pack_model(trainer.model, trainer.cfg, path)
    return os.path.getsize(path) / MIB


def zeros_of(trainer) -> dict[str, float]:
    layers = ternary_layers(trainer.model)
    return {n: float((x.codes_and_scale()[0] == 0).float().mean()) for n, x in layers.items()}


@pytest.mark.parametrize("freeze_start", [0.5, 1.0])
@pytest.mark.parametrize("target", [0.16, 0.18])
def test_the_file_has_the_size_that_was_asked_for(target, freeze_start, sized):
    sized.TERNARY.TARGET_MIB, sized.TERNARY.FREEZE_START = target, freeze_start
    sized.SOLVER.BASE_LR = 0.1  # so that latent weights move
    trainer = trained(sized)
    assert 0.99 * target <= size_of(trainer) <= target
    zeros = zeros_of(trainer)
    assert max(zeros.values()) - min(zeros.values()) > 0.05  # layers differ
    told = yaml.safe_load(Path(sized.OUTPUT_DIR, "zeros_by_layer.yaml").read_text())["TERNARY"]
    assert dict(told["SPARSITY_OVERRIDES"]) == pytest.approx(zeros, abs=0.01)
    measured = json.loads(Path(sized.OUTPUT_DIR, "ternary_statistics.json").read_text())
    found = {name: figures["sparsity"] for name, figures in measured["layers"].items()}
    assert found == pytest.approx(zeros, abs=0.002)


def test_a_size_that_cannot_be_reached_is_refused_with_the_least(sized):
    sized.TERNARY.TARGET_MIB = 0.01
    trainer = TernaryTrainer(sized)
    with pytest.raises(InputError, match=r"packed file has (0\.\d+) MiB already") as error:
        trainer.train()
    assert trainer.storage.iter == 0
    least = float(str(error.value).split("packed file has ")[1].split()[0])
    sized.TERNARY.TARGET_MIB = least + 0.01
    assert size_of(trained(sized)) <= least + 0.01


def by_hand(cfg):
    cfg.TERNARY.SPARSITY = 0.6
    cfg.TERNARY.SPARSITY_OVERRIDES = [["*.fc1", 0.85], ["*_fcn1", 0.3], ["*.fpn_lateral2", 0.0]]
    cfg.TERNARY.COMPENSATION = 0


@pytest.mark.parametrize("target", [0.16, 0.18])
def test_zeros_by_hand_are_moved_to_the_size(target, sized, monkeypatch):
    by_hand(sized)
    layers = ternary_layers(TernaryTrainer.build_model(sized))
    own = {name: layer.ternary.sparsity for name, layer in layers.items()}
    assert {0.0, 0.3, 0.6, 0.85} == set(own.values())
    sized.TERNARY.TARGET_MIB, sized.SOLVER.BASE_LR = target, 0.1
    monkeypatch.setattr("ptq_det.training.asked_size.choose_zeros", None)  # nor gradients
    trainer = trained(sized)
    assert 0.99 * target <= size_of(trainer) <= target
    layers = ternary_layers(trainer.model)
    moved = {
        math.log(x.ternary.sparsity / (1 - x.ternary.sparsity)) - math.log(own[n] / (1 - own[n]))
        for n, x in layers.items()
        if own[n] >= 0.6 and 0.45 < x.ternary.sparsity < 0.99
    }
    assert max(moved) - min(moved) < 1e-4 and abs(max(moved)) > 0.01
    assert all(layers[name].ternary.sparsity == 0.0 for name, value in own.items() if value == 0)
    found = zeros_of(trainer)
    for name, layer in layers.items():
        assert found[name] == pytest.approx(layer.ternary.sparsity, abs=0.01), name


def test_a_size_that_zeros_by_hand_cannot_reach_is_refused_with_the_least(sized):
    by_hand(sized)
    sized.TERNARY.TARGET_MIB = 0.01
    with pytest.raises(InputError, match=r"99% zeros .* packed file has (0\.\d+) MiB") as error:
        TernaryTrainer(sized).train()
    least = float(str(error.value).split("packed file has ")[1].split()[0])
    sized.TERNARY.TARGET_MIB = least + 0.01
    assert size_of(trained(sized)) <= least + 0.01
    sized.TERNARY.SPARSITY_OVERRIDES = [*sized.TERNARY.SPARSITY_OVERRIDES, ["*.fc1", 0.0]]
    with pytest.raises(InputError, match="packed file has"):  # what is to have no zeros keeps none
        TernaryTrainer(sized).train()


@pytest.mark.parametrize("target", [0.2, 0.3, 0.5, 1.0, 10.0])
def test_more_than_zeros_can_fill_is_said_and_changes_nothing(target, sized, log, monkeypatch):
    monkeypatch.setattr(target_module, "SPARSITIES", (0.5, 0.6, 0.8, 0.95))
    sized.TERNARY.TARGET_MIB, sized.SOLVER.BASE_LR = target, 0.1
    trainer = trained(sized)
    assert f"TERNARY.TARGET_MIB is {target:g}; the zeros of least error leave 0." in log.text
    assert size_of(trainer) < target
    for layer in ternary_layers(trainer.model).values():
        assert round(layer.ternary.sparsity, 6) in target_module.SPARSITIES


@pytest.mark.parametrize("target", [0.25, 0.5, 1.0, 10.0])
def test_more_than_zeros_by_hand_can_fill_is_said(target, sized, log):
    by_hand(sized)
    sized.TERNARY.TARGET_MIB, sized.SOLVER.BASE_LR = target, 0.1
    trainer = trained(sized)
    assert f"TERNARY.TARGET_MIB is {target:g}, but with 45 % zeros" in log.text
    assert size_of(trainer) < target
    zeros = {layer.ternary.sparsity for layer in ternary_layers(trainer.model).values()}
    assert sorted(zeros) == pytest.approx([0.0, 0.3, 0.45])


def test_layers_without_zeros_of_their_own_count_with_those_they_have(sized):
    sized.MODEL.RESNETS.NUM_GROUPS, sized.TERNARY.SKIP = 4, ["roi_heads.mask_head.deconv"]
    sized.MODEL.RESNETS.RES2_OUT_CHANNELS, sized.MODEL.RESNETS.WIDTH_PER_GROUP = 32, 8
    sized.TERNARY.TARGET_MIB, sized.TERNARY.SPARSITY = 0.3, 0.8
    trainer = trained(sized)
    grouped = [x for x in ternary_layers(trainer.model).values() if not x.is_chosen]
    assert grouped  # their inputs cannot be looked at
    assert 0.99 * 0.3 <= size_of(trainer) <= 0.3


def test_a_stopped_training_goes_on_with_its_zeros(sized, monkeypatch):
    sized.TERNARY.TARGET_MIB, sized.SEED = 0.165, 3
    sized.SOLVER.MAX_ITER, sized.SOLVER.CHECKPOINT_PERIOD = 6, 2
    whole = trained(sized)
    wanted = {name: value.clone() for name, value in whole.model.state_dict().items()}
    assert any(name.endswith(".sparsity") for name in wanted)
    Path(sized.OUTPUT_DIR, "last_checkpoint").write_text("model_0000001.pth")
    monkeypatch.setattr("ptq_det.training.asked_size.choose_zeros", None)  # not called again
    again = trained(sized, resume=True)
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_a_stopped_training_goes_on_in_its_frozen_stage(sized):
    by_hand(sized)  # one layer has no zeros
    sized.TERNARY.TARGET_MIB, sized.SEED = 0.165, 3
    sized.SOLVER.MAX_ITER, sized.SOLVER.CHECKPOINT_PERIOD = 6, 5
    whole = trained(sized)
    wanted = {name: value.clone() for name, value in whole.model.state_dict().items()}
    Path(sized.OUTPUT_DIR, "last_checkpoint").write_text("model_0000004.pth")
    again = trained(sized, resume=True)
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_latent_weights_are_evaluated_with_the_zeros_of_their_training(sized):
    sized.TERNARY.TARGET_MIB, sized.TERNARY.FREEZE_START = 0.16, 1.0
    trainer = trained(sized)
    codes = {n: x.codes_and_scale()[0] for n, x in ternary_layers(trainer.model).items()}
    model = TernaryTrainer.build_model(sized).eval()
    model.load_state_dict(trainer.model.state_dict())
    for name, layer in ternary_layers(model).items():
        assert torch.equal(layer.codes_and_scale()[0], codes[name]), name
    packed = PackedModel.of(model, sized)
    assert set(packed.layers) >= set(codes)
    assert not any(name.endswith(".sparsity") for name in packed.state_dict())


def test_zeros_that_were_written_give_the_same_codes_without_a_size(sized):
    sized.TERNARY.TARGET_MIB = 0.165
    trainer = trained(sized)
    told = yaml.safe_load(Path(sized.OUTPUT_DIR, "zeros_by_layer.yaml").read_text())["TERNARY"]
    sized.TERNARY.update(told)
    model = TernaryTrainer.build_model(sized)
    own = {n: x.ternary.sparsity for n, x in ternary_layers(trainer.model).items()}
    found = {n: x.ternary.sparsity for n, x in ternary_layers(model).items()}
    assert found == pytest.approx(own, abs=1e-5)


def _train_as_rank(cfg, folder, pictures):
    annotations = f"{pictures}/annotations/train.json"
    register_coco_instances("few_train", {}, annotations, f"{pictures}/train")
    trainer = trained(cfg)
    chosen = {n: x.ternary.sparsity for n, x in ternary_layers(trainer.model).items()}
    torch.save(chosen, f"{folder}/{comm.get_rank()}.pt")
    leave_process_group()


def test_two_processes_choose_the_same_zeros(sized, tmp_path, pictures, two_processes):
    sized.MODEL.DEVICE, sized.TERNARY.TARGET_MIB = two_processes, 0.165
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    launch(
        _train_as_rank,
        num_gpus_per_machine=2,
        dist_url=f"tcp://127.0.0.1:{port}",
        args=(sized, os.fspath(tmp_path), os.fspath(pictures)),
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second and len(set(first.values())) > 1
