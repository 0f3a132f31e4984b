import numpy as np
import pycocotools.mask as mask_utils

from ptq_det.coco_defaults import fill_in


def test_areas_by_hand():
    mask = np.zeros((6, 8), np.uint8, order="F")
    mask[1:4, 2:7] = 1
    annotations = [
        {"bbox": [0, 0, 4, 2.5]},
        {"bbox": [0, 0, 9, 9], "segmentation": [[0, 0, 4, 0, 0, 3], [1, 1, 1, 3, 3, 3, 3, 1]]},
        {"bbox": [0, 0, 9, 9], "segmentation": mask_utils.encode(mask)},
        {"bbox": [0, 0, 9, 9], "segmentation": {"size": [6, 8], "counts": [3, 5, 30, 7, 3]}},
    ]
    fill_in(annotations)
    assert [x["area"] for x in annotations] == [10, 6 + 4, 15, 12]
    assert [x["iscrowd"] for x in annotations] == [0] * 4


def test_what_is_there_is_kept():
    annotation = {"bbox": [0, 0, 4, 2], "area": 3, "iscrowd": 1}
    fill_in([annotation])
    assert (annotation["area"], annotation["iscrowd"]) == (3, 1)
