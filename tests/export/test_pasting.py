import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures.keypoints import heatmaps_to_keypoints

from ptq_det.export.pasting import encode_rle, keypoints_of, paste_mask


@pytest.mark.parametrize(
    "box",
    [[10.3, 5.7, 40.1, 30.2], [-5, -8, 20, 12.5], [50, 40, 80, 70], [3, 3, 4, 4], [0, 0, 64, 48]],
)
def test_masks_are_pasted_as_by_detectron2(box):
    mask = torch.rand(28, 28)
    box = torch.tensor([box])
    wanted = paste_masks_in_image(mask[None], box, (48, 64), 0.5)[0].numpy()
    found = paste_mask(mask.numpy(), box[0].numpy(), 48, 64)
    assert (found != wanted).mean() < 1e-3 and found.any() == wanted.any()


def test_boxes_without_an_area_or_beyond_the_picture_have_no_pixels():
    mask = np.ones((28, 28), np.float32)
    for box in ([5, 5, 5, 9], [70, 5, 90, 9], [9, 9, 5, 5]):
        assert not paste_mask(mask, np.array(box, np.float32), 48, 64).any()


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_run_lengths_are_those_of_pycocotools(density):
    rng = np.random.default_rng(0)
    mask = rng.random((37, 211)) < density
    mask[:, 60:150] = mask[:1, :1]  # long runs take several characters
    wanted = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask) == {"size": [37, 211], "counts": wanted["counts"].decode()}


def test_keypoints_are_those_of_detectron2():
    maps, boxes = torch.randn(3, 4, 56, 56), torch.tensor(
        [[3.0, 5.5, 60.2, 90.1], [10, 10, 10.4, 10.2], [0, 0, 300, 17.3]]
    )  # fmt: skip
    wanted = heatmaps_to_keypoints(maps, boxes)[:, :, [0, 1, 3]].numpy()
    np.testing.assert_allclose(keypoints_of(maps.numpy(), boxes.numpy()), wanted, rtol=1e-3)
    assert keypoints_of(np.zeros((0, 4, 56, 56), np.float32), np.zeros((0, 4))).shape == (0, 4, 3)
