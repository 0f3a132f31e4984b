import copy
import json
import re
import time

import pytest

from ptq_det.data.coco_check import check_coco

GOOD = {
    "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
    "annotations": [
        {
            "id": i,
            "image_id": 1,
            "category_id": 1,
            "bbox": [4, 4, 10, 8],
            "area": 80,
            "iscrowd": 0,
            "segmentation": [[4, 4, 14, 4, 14, 12]],
        }
        for i in (1, 2)
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
}


def check(content, tmp_path, masks=True, polygons=True, keypoints=0):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return [str(trouble) for trouble in check_coco(str(path), masks, polygons, keypoints)]


def test_what_is_good(tmp_path):
    assert check(GOOD, tmp_path) == []
    boxes = copy.deepcopy(GOOD)
    for entry in boxes["annotations"]:
        del entry["segmentation"]
    assert check(boxes, tmp_path, masks=False) == []
    rle = copy.deepcopy(GOOD)
    rle["annotations"][1] |= {"segmentation": {"size": [48, 64], "counts": "x"}, "iscrowd": 1}
    assert check(rle, tmp_path) == []  # a crowd, as COCO has it
    rle["annotations"][1]["iscrowd"] = 0
    assert check(rle, tmp_path, polygons=False) == []


CHANGES = {
    "2 annotations .* an area that is no number": lambda c: [
        x.update(area="9") for x in c["annotations"]
    ],
    "an iscrowd that is not 0 or 1": lambda c: c["annotations"][0].update(iscrowd="0"),
    "1 annotations .*id 2. have no mask": lambda c: c["annotations"][1].update(segmentation=[]),
    "fewer than three": lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3, 4]]),
    "not in a list of polygons": lambda c: c["annotations"][1].update(segmentation=[1, 2, 3, 4]),
    "x, y, x, y": lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
    "MASK_FORMAT bitmask": lambda c: c["annotations"][1].update(
        segmentation={"size": [1, 1], "counts": "x"}
    ),
    "MASK_ON False": lambda c: [x.pop("segmentation") for x in c["annotations"]],
    "image_id that is no whole": lambda c: c["annotations"][0].update(image_id="1"),
    "image_id that is not there": lambda c: c["annotations"][0].update(image_id=9),
    "category_id that is not there": lambda c: c["annotations"][0].update(category_id=2),
    "annotations .* an id that was there": lambda c: c["annotations"][1].update(id=1),
    "categories .* an id that was there": lambda c: c.update(categories=c["categories"] * 3),
    "a name that was there": lambda c: c["categories"][1].update(name="cat"),
    "have no name": lambda c: c["categories"][1].pop("name"),
    "no width": lambda c: c["images"][0].pop("width"),
    "no height": lambda c: c["images"][0].update(height=0),
    "no file_name": lambda c: c["images"][0].pop("file_name"),
    "as Windows": lambda c: c["images"][0].update(file_name="images\\a.png"),
    "pictures .* no whole number": lambda c: c["images"][0].update(id="a"),
    "no bbox of four": lambda c: c["annotations"][0].update(bbox=[1, 2, 3]),
    "negative size": lambda c: c["annotations"][0].update(bbox=[9, 9, -3, 3]),
    "`ignore`": lambda c: c["annotations"][0].update(ignore=1),
    "no JSON objects": lambda c: c["annotations"].append(3),
    "lacks the lists 'categories'": lambda c: c.pop("categories"),
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_would_fail_later_is_named(message, tmp_path):
    content = copy.deepcopy(GOOD)
    CHANGES[message](content)
    found = check(content, tmp_path)
    assert any(re.search(message, line) for line in found), found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "'images', 'annotations', 'categories'"),
        (b'{"_via_img_metadata": {}}', "lacks the lists"),
    ],
)
def test_what_is_no_coco_file(data, message, tmp_path):
    (line,) = check(data, tmp_path)
    assert message in line


def test_keypoints_are_counted(tmp_path):
    content = copy.deepcopy(GOOD)
    for entry in content["annotations"]:
        entry["keypoints"] = [1, 2, 2, 0, 0, 0]
    assert check(content, tmp_path, keypoints=2) == []
    (line,) = check(content, tmp_path, keypoints=17)
    assert "2 annotations" in line and "no keypoints of 17 times" in line
    del content["annotations"][1]["keypoints"]
    assert check(content, tmp_path) == []
    (line,) = check(content, tmp_path, keypoints=2)
    assert "1 annotations (the first has the id 2)" in line
    content["annotations"][1]["iscrowd"] = 1
    assert check(content, tmp_path, keypoints=2) == []


def test_many_annotations_take_no_time(tmp_path):
    content = copy.deepcopy(GOOD)
    content["annotations"] = [{**content["annotations"][0], "id": i} for i in range(100_000)]
    start = time.perf_counter()
    assert check(content, tmp_path) == []
    assert time.perf_counter() - start < 10
