import copy
import json
import re
import time

import numpy as np
import pycocotools.mask as mask_utils
import pytest

from ptq_det.data import coco_masks
from ptq_det.data.coco_check import check_coco, class_names_of, pictures_of
from ptq_det.data.coco_masks import unfilled

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


def check(content, tmp_path, masks=True, polygons=True, keypoints=0, objects=True):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    found = check_coco(str(path), masks, polygons, keypoints, objects)
    return [str(trouble) for trouble in found]


def test_what_is_good(tmp_path):
    assert check(GOOD, tmp_path) == []
    boxes = copy.deepcopy(GOOD)
    for entry in boxes["annotations"]:
        del entry["segmentation"]
    assert check(boxes, tmp_path, masks=False) == []
    rle = copy.deepcopy(GOOD)
    rle["annotations"][1] |= {"segmentation": {"size": [48, 64], "counts": "PP3"}, "iscrowd": 1}
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
    "a file_name that was there": lambda c: c["images"].append({**c["images"][0], "id": 2}),
    "bbox of four numbers": lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]),
    "bbox of four numbers .x": lambda c: c["annotations"][0].update(bbox=[1, 10**400, 3, 4]),
    "an area that is no number": lambda c: c["annotations"][0].update(area=10**400),
    "keypoints that are no list": lambda c: c["categories"][0].update(keypoints=17),
    "it has no pictures": lambda c: c["images"].clear(),
    "it has no categories": lambda c: c["categories"].clear(),
    "it has no annotations of single": lambda c: c["annotations"].clear(),
    "no annotations of single objects .iscrowd": lambda c: [
        x.update(iscrowd=1) for x in c["annotations"]
    ],
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
        (json.dumps(GOOD).encode("utf-16"), "not in UTF-8"),
        (json.dumps(GOOD).encode("utf-16-le"), "no JSON"),
        (b'{"a": "\xe9"}', "not in UTF-8"),
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
    unseen = copy.deepcopy(content)
    for entry in unseen["annotations"]:
        entry["keypoints"] = [1, 2, 0, 0, 0, 0]
    (line,) = check(unseen, tmp_path, keypoints=2)
    assert "no keypoint with a visibility above 0" in line
    del content["annotations"][1]["keypoints"]
    assert check(content, tmp_path) == []
    (line,) = check(content, tmp_path, keypoints=2)
    assert "1 annotations (the first has the id 2)" in line
    content["annotations"][1]["iscrowd"] = 1
    assert check(content, tmp_path, keypoints=2) == []


def test_background_alone_may_be_wanted(tmp_path):
    content = {**GOOD, "annotations": []}
    assert check(content, tmp_path, objects=False) == []


RLE = mask_utils.encode(np.asfortranarray(np.eye(48, 64, dtype=np.uint8)))["counts"].decode()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [48, 64], "counts": RLE}, None),
        ({"size": [48, 64], "counts": [48 * 64]}, None),
        ({"size": [48, 64], "counts": [0, 3, 48 * 64 - 3]}, None),
        ({"size": [64, 48], "counts": RLE}, "another size"),
        ({"size": [48, 64], "counts": RLE[:-1]}, "do not fill"),
        ({"size": [48, 64], "counts": RLE + "1"}, "do not fill"),
        ({"size": [48, 64], "counts": "\x7f\x7f"}, "do not fill"),
        ({"size": [48, 64], "counts": "no text of RLE"}, "do not fill"),
        ({"size": [48, 64], "counts": "o" * 40}, "do not fill"),
        ({"size": [48, 64], "counts": "é"}, "do not fill"),
        ({"size": [48, 64], "counts": ""}, "do not fill"),
        ({"size": [48, 64], "counts": []}, "do not fill"),
        ({"size": [48, 64], "counts": [48 * 64 - 1]}, "do not fill"),
        ({"size": [48, 64], "counts": [-1, 48 * 64 + 1]}, "do not fill"),
        ({"size": [48, 64], "counts": [48 * 64.0]}, "do not fill"),
        ({"size": [48, 64], "counts": None}, "without size and counts"),
        ({"size": ["48", 64], "counts": RLE}, "without size and counts"),
        ({"size": None, "counts": RLE}, "without size and counts"),
        ([[1, 2, 3, 4, 5, float("inf")]], "no list of x, y"),
    ],
)
@pytest.mark.parametrize("crowd", [0, 1])
def test_masks(mask, message, crowd, tmp_path):
    content = copy.deepcopy(GOOD)
    content["annotations"].append(
        {**GOOD["annotations"][0], "id": 9, "segmentation": mask, "iscrowd": crowd}
    )
    found = check(content, tmp_path, polygons=False)
    assert len(found) == (message is not None)
    assert not found or (message in found[0] and "id 9)" in found[0])


@pytest.mark.parametrize("seed", range(5))
def test_what_pycocotools_writes_fills_its_size(seed):
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(40):
        mask = rng.random((rng.integers(1, 300), rng.integers(1, 300))) < rng.random() ** 4
        rle = mask_utils.encode(np.asfortranarray(mask, np.uint8))
        masks.append({"size": rle["size"], "counts": rle["counts"].decode()})
    assert unfilled(masks) == []
    bad = [3, 4, 39]
    for i in bad:
        masks[i]["size"] = [masks[i]["size"][0] + 1, masks[i]["size"][1]]
    assert unfilled(masks) == bad


def test_a_text_that_is_cut_harms_no_other(monkeypatch):
    monkeypatch.setattr(coco_masks, "_BATCH", 3 * len(RLE))
    whole = {"size": [48, 64], "counts": RLE}
    last = max(i for i, x in enumerate(RLE) if (ord(x) - 48) & 32)
    cut = {"size": [48, 64], "counts": RLE[: last + 1]}  # in the middle of a number
    assert unfilled([whole, cut, whole, {**whole, "counts": ""}, whole, cut]) == [1, 3, 5]


def test_masks_that_are_not_learned_have_to_be_loaded(tmp_path):
    content = copy.deepcopy(GOOD)
    mask = content["annotations"][0]["segmentation"] = {"size": [9, 9], "counts": RLE}
    assert check(content, tmp_path, masks=False) == []
    for broken in ([1, 2, 3], "x", {**mask, "counts": None}):
        content["annotations"][0]["segmentation"] = broken
        (line,) = check(content, tmp_path, masks=False)
        assert "neither polygons nor RLE" in line


def with_boxes(boxes, areas=None):
    content = copy.deepcopy(GOOD)
    content["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": list(box)}
        for i, box in enumerate(boxes, 1)
    ]
    for entry, area in zip(content["annotations"], areas or [], strict=False):
        entry["area"] = area
    return content


SOUND = [(4, 4, 10, 8), (30, 20, 30, 20), (1, 30, 20, 15), (50, 2, 12, 9)]
CORNERS = [(x, y, x + w, y + h) for x, y, w, h in SOUND]
CENTRAL = [(20, 20, 30, 24), (21, 19, 31, 25)]  # corners that reach not beyond it as they are
LARGE = [(8, 8, 20, 16), (40, 30, 60, 40), (2, 20, 100, 30), (50, 4, 60, 18)]
SYSTEMATIC = {
    "that is x1, y1, x2, y2": (with_boxes(CORNERS), 3, 2),
    "is x1, y1, x2, y2; write": (with_boxes(CENTRAL, [40, 60]), 2, 1),
    "of fractions": (with_boxes((x / 64, y / 48, w / 64, h / 48) for x, y, w, h in SOUND), 4, 1),
    "bbox of no size": (with_boxes([(4, 4, 0, 9), (5, 5, 3, 0), SOUND[0]]), 2, 1),
    "outside of the picture": (with_boxes([(64, 4, 5, 9), (5, -9, 3, 8), SOUND[0]]), 2, 1),
    "far beyond": (with_boxes(LARGE), 3, 2),
}


@pytest.mark.parametrize("message", SYSTEMATIC)
def test_what_is_wrong_with_most_boxes(message, tmp_path):
    content, count, first = SYSTEMATIC[message]
    (line,) = check(content, tmp_path, masks=False)
    assert line.startswith(f"{count} annotations (the first has the id {first})")
    assert message in line


@pytest.mark.parametrize(
    "odd", [(4, 4, 0, 0), (70, 4, 5, 5), (0.1, 0.1, 0.5, 0.5), (60, 40, 64, 48), (-30, 4, 40, 8)]
)
def test_a_few_odd_boxes_are_none_of_an_export(odd, tmp_path):
    assert check(with_boxes([*SOUND, odd]), tmp_path, masks=False) == []
    assert check(with_boxes([SOUND[0], odd]), tmp_path, masks=False) == []
    whole = [(0, 0, 64, 48)] * 3
    assert check(with_boxes(whole, [64 * 48] * 3), tmp_path, masks=False) == []


@pytest.mark.parametrize("rle", [False, True])
def test_many_annotations_take_no_time(tmp_path, rle):
    content = copy.deepcopy(GOOD)
    if rle:
        mask = np.asfortranarray(np.random.default_rng(0).random((48, 64)) < 0.03, np.uint8)
        counts = mask_utils.encode(mask)["counts"].decode()
        content["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": counts}
    content["annotations"] = [{**content["annotations"][0], "id": i} for i in range(100_000)]
    start = time.perf_counter()
    assert check(content, tmp_path, polygons=False) == []
    assert time.perf_counter() - start < 10


def test_sound_parts_of_a_file(tmp_path):
    content = copy.deepcopy(GOOD)
    content["categories"].reverse()
    content["images"] += [{"id": 2, "file_name": "b.png", "width": "9", "height": 9}, 3]
    assert class_names_of(content) == ["cat", "dog"]
    assert pictures_of(content, "/x") == [{"file_name": "/x/a.png", "width": 64, "height": 48}]
    content["categories"][0]["name"] = None
    assert class_names_of(content) is None
