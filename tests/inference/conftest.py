"""A packed, calibrated file of a tiny Mask R-CNN, and what is logged."""

import logging

import pytest
import torch

from ptq_det import pack_model, ternarize
from ptq_det.inference import calibrate
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel
from tests.packing.conftest import _randomize_norms

PICTURE = {"image": torch.randint(0, 256, (3, 96, 80)), "height": 96, "width": 80}


def packed_file(cfg, path):
    model = build_float_model(cfg)
    _randomize_norms(model)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, path)
    packed = PackedModel.read(path)
    packed.ranges = calibrate(packed.build("cpu"), [[PICTURE]])
    packed.write(path)
    return str(path)


@pytest.fixture
def file(cfg, tmp_path):
    return packed_file(cfg, tmp_path / "m.safetensors")


@pytest.fixture
def said():
    """What is logged."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("ptq_det")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)
