import copy
import re

import numpy as np
import pytest

from ptq_det.data.record_check import check_records

OBJECT = {"bbox": [1, 1, 5, 5], "bbox_mode": 0, "category_id": 1}
GOOD = [
    {"file_name": f"{i}.png", "image_id": i, "width": 9, "height": 9, "annotations": [OBJECT] * 2}
    for i in range(3)
]


def test_good_records():
    lines, named = check_records(GOOD, 2, evaluated=True)
    assert lines == [] and named == GOOD
    for number in (np.int64(1), True + 0):
        records = [{**GOOD[0], "annotations": [{**OBJECT, "category_id": number}]}]
        assert check_records(records, 2) == ([], records)
    pixels = [{"file_name": "a.png"}, {"file_name": "b.png"}]
    assert check_records(pixels, None, evaluated=True) == ([], pixels)


CHANGES = {
    r"2 times, first in record 1 \(of 0 to 2\): it has no width": lambda r: [
        x.pop("width") for x in r[1:]
    ],
    "above 1, the last of the model's 2 classes": lambda r: r[2]["annotations"][1].update(
        category_id=2
    ),
    "no whole number from 0 on": lambda r: r[2]["annotations"][1].update(category_id=-1),
    "a category_id is no whole": lambda r: r[0]["annotations"][1].update(category_id="cat"),
    "lacks bbox or bbox_mode": lambda r: r[0]["annotations"][0].pop("bbox_mode"),
    "an annotation is no dict": lambda r: r[0]["annotations"].append([1, 2]),
    "it has no image_id": lambda r: r[0].pop("image_id"),
    "the same image_id": lambda r: r[0].update(image_id=2),
    "sem_seg_file_name is not there": lambda r: r[0].update(sem_seg_file_name="nowhere.png"),
    "no dict with a file_name": lambda r: r[0].pop("file_name"),
    "it is no dict": lambda r: r.append("a.png"),
    "it has no pictures": lambda r: r.clear(),
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_would_fail_later_is_named(message):
    records = copy.deepcopy(GOOD)
    CHANGES[message](records)
    lines, named = check_records(records, 2, evaluated=True)
    assert len(lines) == 1 and re.search(message, lines[0]), lines
    assert all("file_name" in record for record in named)


def test_pixels_need_their_classes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    records = [{"file_name": "a.png", "sem_seg_file_name": str(tmp_path / "a.png")}, GOOD[0]]
    assert check_records(records)[0] == []
    (line,) = check_records(records, pixels=True)[0]
    assert line.startswith("1 times, first in record 1") and "no sem_seg_file_name" in line
