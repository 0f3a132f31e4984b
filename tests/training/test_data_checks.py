import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ptq_det.errors import InputError
from ptq_det.training.data_checks import (
    check_classes,
    check_data,
    check_datasets,
    check_evaluators,
    check_keypoints,
)
from ptq_det.training.preflight import preflight


def test_a_dataset_that_is_not_registered_is_named_with_its_neighbours(pictures):
    with pytest.raises(InputError, match=r"'few_trian' is not registered.*'few_train'"):
        check_datasets(["few_trian"])


def test_missing_files_are_named_with_the_cure(monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    metadata = MetadataCatalog.get("coco_2017_val")
    if metadata.json_file.startswith("datasets"):
        with pytest.raises(InputError, match=r"instances_val2017.*DETECTRON2_DATASETS"):
            check_datasets(["coco_2017_val"])


def test_datasets_that_are_there_pass(pictures):
    check_datasets(["few_train", "few_val"])


def test_classes_of_data_sets_and_model_agree(cfg):
    cfg.DATASETS.TEST = ("few_val",)
    check_classes(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    message = r"'few_train' has 6 classes but MODEL\.ROI_HEADS\.NUM_CLASSES is 80.*CLASSES 6"
    with pytest.raises(InputError, match=message):
        check_classes(cfg)
    with pytest.raises(InputError, match="'few_val' has 6 classes"):
        check_classes(cfg, training=False)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.NUM_CLASSES = "RetinaNet", 6
    check_classes(cfg)


def test_test_sets_have_the_classes_of_training_sets(cfg):
    check_classes(cfg)
    names = list(MetadataCatalog.get("few_train").thing_classes)
    for i, other in enumerate((names[::-1], [*names[:5], "moon"])):
        MetadataCatalog.get(f"other_{i}").thing_classes = other
    refused = "'few_train' and 'other_{}' have other classes"
    cfg.DATASETS.TEST = ("other_1",)
    with pytest.raises(InputError, match=refused.format(1)):
        check_classes(cfg)
    cfg.DATASETS.TEST = ("other_0",)
    check_classes(cfg)
    cfg.DATASETS.TRAIN = ("few_train", "other_0")
    with pytest.raises(InputError, match=refused.format(0)):
        check_classes(cfg)


def test_data_are_looked_through(cfg, tmp_path):
    cfg.DATASETS.TEST = ("few_val",)
    check_data(cfg, training=True)
    cfg.INPUT.MASK_FORMAT = "polygon"
    with pytest.raises(InputError, match=r"train\.json: .* RLE masks; set INPUT"):
        check_data(cfg, training=True)
    check_data(cfg, training=False)
    content = json.loads(Path(MetadataCatalog.get("few_val").json_file).read_text())
    content["images"][0]["width"] = 999
    (tmp_path / "v.json").write_text(json.dumps(content))
    images = MetadataCatalog.get("few_val").image_root
    register_coco_instances("few_wrong", {}, str(tmp_path / "v.json"), images)
    cfg.DATASETS.TEST = ("few_wrong",)
    with pytest.raises(InputError, match=r"\.png: it is 128 × 128 pixels .* and 999 × 128"):
        check_data(cfg, training=False)


def test_pictures_are_decoded_on_request(cfg, tmp_path, pictures):
    shutil.copytree(pictures / "val", tmp_path / "val")
    annotations = MetadataCatalog.get("few_val").json_file
    picture = next((tmp_path / "val").iterdir())
    data = bytearray(picture.read_bytes())
    data[len(data) // 2] ^= 0xFF
    picture.write_bytes(data)
    register_coco_instances("few_broken", {}, annotations, str(tmp_path / "val"))
    cfg.DATASETS.TEST = ("few_broken",)
    check_data(cfg, training=False)
    with pytest.raises(InputError, match="it cannot be read"):
        check_data(cfg, training=False, decode=True)


def registered(name, records, **metadata):
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)
    return (name,)


def test_records_of_a_function_are_looked_through(cfg, pictures):
    path = next((pictures / "val").iterdir())
    box = {"bbox": [1, 1, 20, 20], "bbox_mode": 0, "category_id": 5}
    record = {"file_name": str(path), "image_id": 1, "width": 128, "height": 128}
    good = [{**record, "annotations": [box]}]
    metadata = {"evaluator_type": "coco", "thing_classes": list("abcdef")}
    cfg.DATASETS.TEST = registered("own_val", good, **metadata)
    check_data(cfg, training=False)
    check_classes(cfg, training=False)
    bad = [{**good[0], "annotations": [{**box, "category_id": 6}]}]
    bad.append({**record, "image_id": 2, "file_name": "nowhere.png"})
    cfg.DATASETS.TEST = registered("own_val", bad, **metadata)
    message = r"(?s)'own_val': 1 times.*the model's 6 classes.*nowhere\.png: it is not there"
    with pytest.raises(InputError, match=message):
        check_data(cfg, training=False)
    cfg.DATASETS.TEST = registered("own_val", good, evaluator_type="coco")
    with pytest.raises(InputError, match="'own_val' does not tell the names of its classes"):
        check_classes(cfg, training=False)


def test_a_function_that_fails_is_named(cfg):
    cfg.DATASETS.TEST = registered("fails_val", [])
    with pytest.raises(InputError, match="'fails_val': it has no pictures"):
        check_data(cfg, training=False)
    DatasetCatalog.remove("fails_val")
    DatasetCatalog.register("fails_val", lambda: 1 / 0)
    with pytest.raises(InputError, match=r"'fails_val' cannot be read \(ZeroDivisionError: div"):
        check_data(cfg, training=False)


def changed(name, change, tmp_path):
    content = json.loads(Path(MetadataCatalog.get("few_val").json_file).read_text())
    change(content)
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    images = MetadataCatalog.get("few_val").image_root
    register_coco_instances(name, {}, str(tmp_path / f"{name}.json"), images)
    return (name,)


def test_bad_annotations_hide_nothing(cfg, tmp_path):
    def change(content):
        content["annotations"][0]["bbox"] = [1, 2]
        content["images"][0]["file_name"] = "nowhere.png"
        content["categories"].append({"id": 99, "name": "moon"})

    cfg.DATASETS.TEST = changed("bad_val", change, tmp_path)
    message = r"(?s)2 things.*no bbox of four.*nowhere\.png: it is not there.*has 7 classes but"
    with pytest.raises(InputError, match=message):
        preflight(cfg, training=False)


def test_many_troubles_of_one_data_set_hide_no_other(cfg, tmp_path):
    def change(content):
        for i, image in enumerate(content["images"] * 6):
            content["images"].append({**image, "id": 1000 + i, "file_name": f"{i}.png"})

    def bare(content):
        content["annotations"].clear()

    cfg.DATASETS.TRAIN = changed("many_train", change, tmp_path)
    cfg.DATASETS.TEST = changed("empty_val", bare, tmp_path)
    message = r"(?s)9\.png: it is not there\n  and 14 more of 'many_train'\n.*no annotations of"
    with pytest.raises(InputError, match=message):
        check_data(cfg, training=True)


def test_background_may_be_learned_where_it_is_not_filtered(cfg, tmp_path):
    def bare(content):
        content["annotations"].clear()

    cfg.DATASETS.TRAIN += changed("background_train", bare, tmp_path)
    with pytest.raises(InputError, match="no annotations of single objects"):
        check_data(cfg, training=True)
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    check_data(cfg, training=True)


def test_folders_of_other_kinds_have_to_be_there():
    registered("elsewhere_val", [], dirname="/nowhere/VOC2007")
    with pytest.raises(InputError, match=r"'elsewhere_val' needs '/nowhere/VOC2007'"):
        check_datasets(["elsewhere_val"])


def test_evaluations_that_are_not_known_or_lack_a_library(cfg, monkeypatch):
    cfg.DATASETS.TEST = ("few_val",)
    check_evaluators(cfg)
    cfg.DATASETS.TEST = ("none_val",)
    with pytest.raises(InputError, match=r"evaluator_type None in its metadata; known are .*coco"):
        check_evaluators(cfg)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind, library in (("lvis", "lvis"), ("cityscapes_sem_seg", "cityscapesscripts")):
        name = f"{kind}_without"
        MetadataCatalog.get(name).set(evaluator_type=kind)
        cfg.DATASETS.TEST = (name,)
        with pytest.raises(InputError, match=f"needs the library {library}: pip install"):
            check_evaluators(cfg)


def test_keypoints_need_names_flips_and_sigmas(cfg):
    check_keypoints(cfg, training=True)  # none are learned
    cfg.MODEL.KEYPOINT_ON = True
    cfg.DATASETS.TRAIN = ("points_train",)
    with pytest.raises(InputError, match=r"'points_train' does not tell the names of its keypoi"):
        check_keypoints(cfg, training=True)
    metadata = MetadataCatalog.get("points_train")
    metadata.set(keypoint_names=["left_eye", "right_eye"], keypoint_flip_map=[])
    with pytest.raises(InputError, match=r"has 2 keypoints, but .*NUM_KEYPOINTS is 17; set it"):
        check_keypoints(cfg, training=True)
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 2
    check_keypoints(cfg, training=True)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    with pytest.raises(InputError, match=r"OKS_SIGMAS has 0 numbers for 2 keypoints"):
        check_keypoints(cfg, training=False)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.05, 0.05]
    check_keypoints(cfg, training=False)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.05, 0]
    with pytest.raises(InputError, match=r"OKS_SIGMAS is \[0\.05, 0\]; .*numbers above 0"):
        check_keypoints(cfg, training=False)
    cfg.DATASETS.TRAIN = ("unread_train",)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.05, 0.05]
    check_keypoints(cfg, training=True, readable=False)
