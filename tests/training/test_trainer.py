import os
import socket

import pytest
import torch
from detectron2.engine import HookBase, launch
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm

from ptq_det import PTQHook, TernaryTrainer
from ptq_det.packing.container import Container
from ptq_det.packing.packed_model import PackedModel
from ptq_det.ternary.ternarize import ternary_layers
from ptq_det.training.processes import leave_process_group


class Killed(Exception):
    pass


class KillAfter(HookBase):
    """Stops a run after an iteration, as a crash would: nothing is saved any more."""

    def __init__(self, iteration):
        self.iteration = iteration

    def after_step(self):
        if self.trainer.iter == self.iteration:
            raise Killed


def run(cfg, kill_after=None, resume=False):
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    if kill_after is not None:
        trainer.register_hooks([KillAfter(kill_after)])
    trainer.train()
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


# Stages of 10 iterations: pruning 0-3, ternary 4-6, frozen 7-9.
@pytest.mark.parametrize(
    ("saved", "optimizer", "quantizer"),
    [
        pytest.param(1, "SGD", "PTQ", id="while pruning"),
        pytest.param(3, "AdamW", "PTQ", id="at the end of pruning"),
        pytest.param(4, "SGD", "PTQ", id="while ternary"),
        pytest.param(6, "SGD", "PTQ", id="at the end of ternary, sgd"),
        pytest.param(6, "AdamW", "PTQ", id="at the end of ternary, adamw"),
        pytest.param(7, "SGD", "PTQ", id="frozen, sgd"),
        pytest.param(8, "AdamW", "PTQ", id="frozen, adamw"),
        pytest.param(5, "AdamW", "TTQ", id="learned scales"),
        pytest.param(7, "AdamW", "TWN", id="twn, frozen"),
    ],
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    cfg, tmp_path, saved, optimizer, quantizer, device
):
    cfg.TERNARY.FREEZE_START = 0.7
    cfg.TERNARY.OPTIMIZER = optimizer
    cfg.TERNARY.QUANTIZER = quantizer
    cfg.TERNARY.DECAY = 0.01
    cfg.INPUT.MIN_SIZE_TRAIN = (48, 56, 64)
    cfg.SOLVER.BASE_LR = 0.01
    cfg.DATALOADER.NUM_WORKERS = saved % 2  # with and without processes that read pictures

    cfg.OUTPUT_DIR = os.fspath(tmp_path / "whole")
    torch.manual_seed(0)
    whole = run(cfg)
    cfg.OUTPUT_DIR = os.fspath(tmp_path / "killed")
    cfg.SOLVER.CHECKPOINT_PERIOD = saved + 1  # saves after iteration `saved`
    torch.manual_seed(0)
    with pytest.raises(Killed):
        run(cfg, kill_after=min(saved + 1, 8) if saved < 8 else 8)
    torch.manual_seed(123)  # a new process has other random numbers
    resumed = run(cfg, resume=True)

    assert resumed.keys() == whole.keys()
    for name, value in whole.items():
        if device == "cpu":
            assert torch.equal(resumed[name], value), name
        else:  # sums over boxes are added up in any order there
            error = (resumed[name].double() - value.double()).norm()
            assert error <= 0.05 * value.double().norm(), name


def test_the_hook_runs_before_weights_are_saved_or_evaluated(cfg):
    hooks = TernaryTrainer(cfg)._hooks
    place = [isinstance(hook, PTQHook) for hook in hooks].index(True)
    for kind in (PeriodicCheckpointer, EvalHook):
        assert place < next(i for i, hook in enumerate(hooks) if isinstance(hook, kind))


def test_without_the_switch_it_is_a_float_trainer(cfg, device):
    cfg.TERNARY.ENABLED = False
    cfg.SOLVER.MAX_ITER = 1
    trainer = TernaryTrainer(cfg)
    assert not ternary_layers(trainer.model)
    assert not any(isinstance(hook, PTQHook) for hook in trainer._hooks)
    trainer.resume_or_load(resume=False)
    trainer.train()


def test_a_wrong_number_of_classes_is_refused(cfg):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    with pytest.raises(ValueError, match=r"has 6 classes but MODEL\.ROI_HEADS\.NUM_CLASSES is 5"):
        TernaryTrainer(cfg)


def train_one_rank(cfg, folder):
    torch.set_num_threads(1)
    # Every process has random numbers of its own; the model starts with those of the first.
    torch.manual_seed(comm.get_rank())
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    codes = {n: x.codes_and_value()[0].cpu() for n, x in ternary_layers(trainer.model).items()}
    codes |= {
        n: p.detach().cpu() for n, p in trainer.model.named_parameters() if n.endswith("clip")
    }
    seen = trainer.data_loader.batch_sampler.sampler._rank
    torch.save({"codes": codes, "rank": seen}, f"{folder}/{comm.get_rank()}.pt")


def register_and_train(cfg, folder, pictures):
    from detectron2.data.datasets import register_coco_instances

    annotations = f"{pictures}/annotations/train.json"
    register_coco_instances("few_train", {}, annotations, f"{pictures}/train")
    train_one_rank(cfg, folder)
    leave_process_group()


@pytest.mark.device
def test_two_processes_end_with_identical_codes(cfg, tmp_path, pictures, two_processes):
    cfg.MODEL.DEVICE = two_processes
    cfg.TERNARY.ACTIVATION_BITS = 4
    cfg.TERNARY.COMPENSATION, cfg.TERNARY.PRUNE_END = 2, 0.0
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    launch(
        register_and_train,
        num_gpus_per_machine=2,
        dist_url=f"tcp://127.0.0.1:{port}",
        args=(cfg, os.fspath(tmp_path), os.fspath(pictures)),
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert (first["rank"], second["rank"]) == (0, 1)  # they did see different pictures
    assert first["codes"].keys() == second["codes"].keys() and first["codes"]
    assert sum(name.endswith("pact.clip") for name in first["codes"]) > 50
    for name, codes in first["codes"].items():
        assert torch.equal(codes, second["codes"][name]), name


@pytest.mark.parametrize(("bits", "activation_bits"), [(2, 0), (4, 4)])
def test_squantizer_is_trained_packed_and_evaluated(cfg, bits, activation_bits, device):
    cfg.TERNARY.QUANTIZER, cfg.TERNARY.BITS = "SQuantizer", bits
    cfg.TERNARY.ACTIVATION_BITS = activation_bits
    cfg.TERNARY.PRUNE_END, cfg.TERNARY.FREEZE_START = 0.33, 1.0
    cfg.DATASETS.TEST = ("few_val",)
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    packed = PackedModel.read(os.path.join(cfg.OUTPUT_DIR, "model_final.safetensors"))
    name = "roi_heads.box_head.fc1"
    codes, value = ternary_layers(trainer.model)[name].codes_and_value()
    layer = packed.layers[name]
    assert layer.kind == "quantized" and codes.abs().max() == 2 ** (bits - 1)
    assert torch.equal(torch.from_numpy(layer.values).flatten(1), codes.cpu())
    torch.testing.assert_close(torch.from_numpy(layer.weight()), value.cpu(), rtol=2**-10, atol=0)
    assert set(trainer._last_eval_results) == {"bbox", "segm"}
    clips = {n: layer.clip for n, layer in packed.layers.items() if layer.activation_bits == 4}
    pacts = {n: x.pact for n, x in ternary_layers(trainer.model).items() if hasattr(x, "pact")}
    assert clips.keys() == pacts.keys() and bool(clips) == bool(activation_bits)
    assert all(clips[n] == float(pact.clip) > 0 for n, pact in pacts.items())


def test_scales_that_are_powers_of_two(cfg, device):
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "FrozenBN"
    cfg.TERNARY.SCALE = "shift"
    cfg.DATASETS.TEST = ("few_val",)
    trainer = TernaryTrainer(cfg)
    for module in trainer.model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(0.3, 3)
    trainer.train()
    path = os.path.join(cfg.OUTPUT_DIR, "model_final.safetensors")
    tensors = Container.read(path).tensors
    scaled = {n.rpartition(".")[0] for n in tensors if n.endswith(".scale")}
    shifted = {n.rpartition(".")[0] for n in tensors if n.endswith(".shifts")}
    layers = ternary_layers(trainer.model)
    assert shifted == layers.keys() and not scaled & layers.keys()
    layer = layers["backbone.bottom_up.res3.0.conv2"]
    assert layer.norm.weight.tolist() == [1.0] * len(layer.norm.weight)
    packed = PackedModel.read(path).layers["backbone.bottom_up.res3.0.conv2"]
    torch.testing.assert_close(
        torch.from_numpy(packed.weight()), layer.codes_and_value()[1].cpu(), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("kind", ["ptq", "squantizer"])
def test_retinanet_is_trained_and_evaluated_from_its_packed_file(cfg, kind, repo, device):
    cfg.merge_from_file(str(repo / f"configs/quick_schedules/shapes_retinanet_{kind}.yaml"))
    cfg.MODEL.DEVICE = device
    cfg.merge_from_list(["MODEL.WEIGHTS", "", "DATASETS.TRAIN", "('few_train',)"])
    cfg.merge_from_list(["DATASETS.TEST", "('few_val',)", "DATALOADER.NUM_WORKERS", 0])
    cfg.merge_from_list(["SOLVER.MAX_ITER", 4, "SOLVER.WARMUP_ITERS", 0, "SOLVER.IMS_PER_BATCH", 2])
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    trainer = TernaryTrainer(cfg)
    trainer.train()
    assert set(trainer._last_eval_results) == {"bbox"}
    packed = PackedModel.read(os.path.join(cfg.OUTPUT_DIR, "model_final.safetensors"))
    kinds = {name: layer.kind for name, layer in packed.layers.items()}
    assert kinds["head.cls_subnet.0"] == {"ptq": "ternary", "squantizer": "quantized"}[kind]
    assert kinds["head.cls_score"] == "int8"


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_scaled_gradients_are_not_clipped(name, cfg, device):
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = True, "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE, cfg.TERNARY.OPTIMIZER = 1.0, name
    moved = []
    for is_scaled in (False, True):
        model = torch.nn.Linear(4, 3, bias=False, device=device)
        torch.nn.init.ones_(model.weight)
        optimizer = TernaryTrainer.build_optimizer(cfg, model)
        scaler = torch.amp.GradScaler(device, enabled=is_scaled, init_scale=65536.0)
        for strength in (1, 2, 1):
            optimizer.zero_grad()
            x = strength * torch.tensor([[0.01, 0.02, 0.3, 0.001]], device=device)
            y = model(x) * torch.tensor([0.5, 0.02, 0.001], device=device)
            scaler.scale(y.sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        moved.append(model.weight.detach() - 1)
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-4, atol=0)
