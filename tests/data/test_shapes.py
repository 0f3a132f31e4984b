import json

import numpy as np
import pycocotools.mask as mask_utils
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ptq_det.data import shapes


def test_a_picture_is_a_function_of_the_seed():
    first, objects = shapes.draw_picture(np.random.default_rng([1, 7]))
    again, same = shapes.draw_picture(np.random.default_rng([1, 7]))
    other, _ = shapes.draw_picture(np.random.default_rng([1, 8]))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert [label for label, _ in objects] == [label for label, _ in same]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(objects, same, strict=True))


def test_masks_are_what_is_to_be_seen():
    for seed in range(20):
        pixels, objects = shapes.draw_picture(np.random.default_rng(seed))
        assert pixels.shape == (128, 128, 3) and pixels.dtype == np.uint8
        cover = np.sum([mask for _, mask in objects], axis=0)
        # Masks of halved resolution may share the pixels at a common edge, no more.
        assert len(objects) >= 1 and (cover > 1).mean() < 0.02
        assert all(mask.any() for _, mask in objects)


def test_objects_vary_in_class_and_size():
    labels, areas, overlaps = [], [], 0
    for seed in range(60):
        _, objects = shapes.draw_picture(np.random.default_rng(seed))
        labels += [label for label, _ in objects]
        areas += [int(mask.sum()) for _, mask in objects]
        boxes = [
            mask_utils.toBbox(mask_utils.encode(np.asfortranarray(m, dtype=np.uint8)))
            for _, m in objects
        ]
        overlaps += np.count_nonzero(mask_utils.iou(boxes, boxes, [0] * len(boxes)) > 0)
        overlaps -= len(boxes)
    assert set(labels) == set(range(len(shapes.CLASSES)))
    assert min(areas) < 12**2 and max(areas) > 40**2
    assert overlaps > 30


def test_files_are_coco_and_the_same_each_time(tmp_path):
    shapes.generate_shapes(tmp_path / "a", "val", 3)
    shapes.generate_shapes(tmp_path / "b", "val", 3)
    first, second = ((tmp_path / x / "annotations/val.json").read_text() for x in "ab")
    assert first == second
    coco = json.loads(first)
    assert len(coco["images"]) == 3 and [c["name"] for c in coco["categories"]] == [*shapes.CLASSES]
    for image in coco["images"]:
        a, b = ((tmp_path / x / "val" / image["file_name"]).read_bytes() for x in "ab")
        assert a == b
    for annotation in coco["annotations"]:
        assert mask_utils.area(annotation["segmentation"]) == annotation["area"]
        assert mask_utils.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["annotations", "val"]


def test_an_interrupted_generation_is_made_good(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shapes, "draw_picture", interrupted)
        shapes.generate_shapes(tmp_path, "val", 2)
    assert not (tmp_path / "annotations/val.json").exists()
    shapes.generate_shapes(tmp_path, "val", 2)
    assert len(list((tmp_path / "val").glob("*.png"))) == 2


def test_it_is_registered_like_the_builtin_ones():
    assert {"shapes_train", "shapes_val"} <= set(DatasetCatalog.list())
    assert shapes.SPLITS["val"] >= 200
    metadata = MetadataCatalog.get("shapes_val")
    assert metadata.thing_classes == list(shapes.CLASSES) and metadata.evaluator_type == "coco"
