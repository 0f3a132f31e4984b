"""Masks in pictures, against Detectron2's."""

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image

from ptq_det.kernels import paste_masks, why_no_kernels

pytestmark = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))


def random_case(count, side, height, width, seed=0):
    random = torch.Generator().manual_seed(seed)
    rough = torch.rand(count, 1, 7, 7, generator=random)
    masks = torch.nn.functional.interpolate(rough, size=(side, side), mode="bilinear")[:, 0]
    size = torch.tensor([width, height])
    ends = [torch.rand(count, 2, generator=random) * size for _ in range(2)]
    return masks, torch.cat([torch.minimum(*ends), torch.maximum(*ends)], dim=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("side, height, width", [(28, 97, 131), (14, 40, 300), (1, 9, 7)])
def test_masks_are_where_detectron2_pastes_them(threads, side, height, width):
    masks, boxes = random_case(20, side, height, width)
    found = paste_masks(masks.numpy(), boxes.numpy(), height, width, 0.5, threads)
    expected = paste_masks_in_image(masks, boxes, (height, width)).numpy()
    assert found.dtype == bool and found.shape == expected.shape and expected.any()
    assert (found != expected).mean() < 1e-5  # a pixel whose value is a half to the last bits


def test_a_threshold_is_the_least_value_of_a_mask():
    masks, boxes = np.full((1, 2, 2), 0.25, np.float32), np.float32([[1, 1, 5, 3]])
    found = paste_masks(masks, boxes, 4, 6, 0.25, 1)[0]
    assert found.sum() == 4 and found[1:3, 2:4].all()  # nearer to the ends it falls to 0
    assert not paste_masks(masks, boxes, 4, 6, 0.26, 1).any()


def test_boxes_beyond_the_picture_and_without_an_area():
    inf, nan = np.inf, np.nan
    corners = [(-5, -5, 3, 3), (8, 2, 99, 4), (2, 2, 2, 5), (5, 5, 4, 6), (20, 20, 30, 30)]
    corners += [(-inf, 0, inf, 4), (0, 0, inf, 4), (nan, 0, 3, 3), (0, nan, 3, nan)]
    boxes = np.float32(corners)
    found = paste_masks(np.ones((len(boxes), 4, 4), np.float32), boxes, 7, 11, 0.5, 2)
    assert found[0, :3, :3].all() and found[0].sum() == 9
    assert found[1, 2:4, 8:].all() and found[1].sum() == 6
    assert not found[[2, 3, 4, 7, 8]].any()


def test_no_masks_are_an_array_of_none():
    nothing = paste_masks(np.empty((0, 28, 28)), np.empty((0, 4)), 5, 6, 0.5, 2)
    assert nothing.shape == (0, 5, 6)
