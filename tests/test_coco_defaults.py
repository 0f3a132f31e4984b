import numpy as np
import pycocotools.mask as mask_utils
import pytest
from pycocotools.coco import COCO

from ptq_det.coco_defaults import complete, fill_in


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


def test_keypoints_are_counted_and_crowds_get_some():
    box = {"bbox": [0, 0, 4, 2]}
    annotations = [
        {**box, "keypoints": [1, 1, 2, 0, 0, 0, 3, 1, 1]},
        {**box, "keypoints": [1, 1, 2, 2, 2, 2, 3, 1, 1], "num_keypoints": 3},
        {**box, "iscrowd": 1},
        {**box, "iscrowd": 1, "keypoints": [1, 1, 2]},
        {**box, "keypoints": None},
    ]
    fill_in(annotations)
    assert [x["num_keypoints"] for x in annotations] == [2, 3, 0, 0, 0]
    assert [x["keypoints"] for x in annotations[2:]] == [[0] * 9] * 3
    fill_in(annotations)
    assert [x["num_keypoints"] for x in annotations] == [2, 3, 0, 0, 0]


def test_where_none_has_keypoints_none_gets_any():
    annotations = [{"bbox": [0, 0, 4, 2]}]
    fill_in(annotations)
    assert not {"keypoints", "num_keypoints"} & set(annotations[0])


@pytest.mark.parametrize("ids", [(0, 1), (-1, 4), ("a", 2), (7, 3)])
def test_ids_that_stand_for_no_match_are_numbered_anew(ids, capsys):
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": x, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 2]} for x in ids
        ],
    }
    truth.createIndex()
    capsys.readouterr()
    complete(truth)
    kept = ids == (7, 3)
    assert sorted(truth.getAnnIds()) == sorted(ids if kept else (1, 2))
    assert all(truth.anns[key]["id"] == key and "area" in truth.anns[key] for key in truth.anns)
    assert truth.getAnnIds(imgIds=[1], catIds=[1]) == list(ids if kept else (1, 2))
    assert capsys.readouterr().out == ""


def test_a_file_without_annotations_is_left_alone():
    truth = COCO()
    complete(truth)
    assert truth.dataset == {}
