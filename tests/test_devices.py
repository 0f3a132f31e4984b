"""No operator meets tensors of the GPU and of the CPU, on every way that a GPU's tensors take."""

import copy
import os

import pytest
import torch
from torch import nn

from ptq_det import TernaryTrainer, load_packed, ternarize
from ptq_det.compensation.whole_model import compensate_model
from ptq_det.ternary.layers import TernaryLinear
from ptq_det.ternary.schedule import Stage
from tests.pretended_gpu import DEVICE, PretendedGPU
from tests.quantizers.test_base import every_quantizer
from tests.ternary.test_layers import CASES, ternary

ON_GPU = str(DEVICE)


@pytest.fixture
def gpu():
    with PretendedGPU():
        yield


def test_tensors_of_both_devices_are_refused_as_cuda_does(gpu):
    x, y = torch.arange(3.0, device=ON_GPU), torch.ones(3)
    assert x.device == DEVICE and x.is_cuda and x.tolist() == [0, 1, 2]
    for mixed in (
        lambda: x + y,
        lambda: y.add_(x[0]),
        lambda: torch.cat([x, y]),
        lambda: torch.stack([x[0], y[0]]),
        lambda: nn.functional.linear(x, y[None]),
        lambda: torch.rand(3, device=ON_GPU, generator=torch.Generator()),
        lambda: y[torch.tensor([0], device=ON_GPU)],
    ):
        with pytest.raises(RuntimeError, match=r"device"):
            mixed()
    with pytest.raises(TypeError, match="cannot become NumPy arrays"):
        x.numpy()
    assert (x + torch.tensor(2.0)).tolist() == [2, 3, 4]  # a number may come from anywhere
    assert x[torch.tensor([2])].tolist() == [2]
    assert (x.cpu() + y).tolist() == [1, 2, 3] and y.copy_(x) is y


class Careless(TernaryLinear):
    """Makes a tensor where PyTorch makes one by itself."""

    def forward(self, x):
        return super().forward(x) * torch.ones(self.out_features)


def test_a_layer_that_makes_tensors_on_the_cpu_is_found(gpu):
    layer, x = ternary(nn.Linear(12, 5)).to(ON_GPU), torch.randn(3, 12).to(ON_GPU)
    assert layer(x).device == DEVICE
    layer.__class__ = Careless
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        layer(x)


@pytest.mark.parametrize("quantizer", list(every_quantizer()))
def test_quantizers_stay_on_their_device(quantizer, gpu):
    weight = torch.randn(700, 101)  # of which a quantile is found by a sample
    found = []
    for w in (weight, weight.to(ON_GPU)):
        codes = quantizer.codes(w, 0.7)
        scale = quantizer.scale(w, codes)
        value = quantizer.dequantize(codes.clone(), scale)
        again = quantizer.codes_of_quantized(value)
        same = quantizer.scale_of_quantized(value, again)
        gradient = quantizer.latent_gradient(w, codes, scale) if quantizer.learns_scale else w
        assert quantizer.is_quantized(value) and not quantizer.is_quantized(w)
        found.append((codes, scale, value, again, same, gradient))
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert on_gpu.device == DEVICE and torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.parametrize("stage", [None, *Stage])
@pytest.mark.parametrize("case", CASES)
def test_layers_and_their_gradients(case, stage, gpu):
    plain, x = CASES[case]()
    values = {"THRESHOLD": "network", "SCALE": "learned", "DECAY": 0.1}
    layer = ternary(plain, COMPENSATION=0, ACTIVATION_BITS=4, **values)
    if stage is Stage.FROZEN:
        layer.snap()
    layer.ternary.stage = stage
    other = copy.deepcopy(layer).to(ON_GPU)
    layer(x).square().sum().backward()
    other(x.to(ON_GPU)).square().sum().backward()
    for a, b in zip(layer.parameters(), other.parameters(), strict=True):
        assert b.grad.device == DEVICE
        torch.testing.assert_close(b.grad.cpu(), a.grad, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(x.to(ON_GPU)).cpu(), layer.eval()(x))


def test_compensation(cfg, gpu):
    cfg.TERNARY.SKIP = []
    models = [nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ConvTranspose2d(6, 4, 2, 2))]
    ternarize(models[0], cfg)
    models.append(copy.deepcopy(models[0]).to(ON_GPU))
    pictures = [torch.randn(2, 3, 8, 9) for _ in range(4)]
    compensate_model(models[0], pictures, 4)
    compensate_model(models[1], [each.to(ON_GPU) for each in pictures], 4)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert b.device == DEVICE
        torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-4)


def test_stages_resume_packing_and_evaluation(cfg, gpu):
    cfg.MODEL.DEVICE, cfg.DATASETS.TEST = ON_GPU, ("few_val",)
    cfg.TERNARY.ACTIVATION_BITS = 4
    cfg.TERNARY.SKIP = [*cfg.TERNARY.SKIP, "*res[345]*"]
    cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 3, 10
    cfg.TERNARY.PRUNE_END, cfg.TERNARY.FREEZE_START = 0.34, 0.67
    for cfg.SOLVER.MAX_ITER, resume in ((3, False), (4, True)):
        trainer = TernaryTrainer(cfg)
        trainer.resume_or_load(resume=resume)
        trainer.train()
        assert all(p.device == DEVICE for p in trainer.model.parameters())
    assert set(trainer._last_eval_results) == {"bbox", "segm"}
    path = os.path.join(cfg.OUTPUT_DIR, "model_final.safetensors")
    models = {device: load_packed(path, device) for device in ("cpu", ON_GPU)}
    x = torch.rand(1, 3, 64, 64)
    for name, expected in models["cpu"].backbone(x).items():
        found = models[ON_GPU].backbone(x.to(ON_GPU))[name]
        assert found.device == DEVICE
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
