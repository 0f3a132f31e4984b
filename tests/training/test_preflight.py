import json
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ptq_det.errors import InputError
from ptq_det.training.preflight import (
    check_augmentation,
    check_classes,
    check_data,
    check_datasets,
    check_device,
    check_output,
    check_weights,
    find_config_file,
    read_config,
)


def test_a_config_is_found_on_disk_or_in_the_model_zoo(repo):
    path = str(repo / "configs/mask_rcnn_R50_ptq.yaml")
    assert find_config_file(path) == path
    assert find_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml").endswith("_1x.yaml")
    with pytest.raises(InputError, match=r"'no/such\.yaml' not found"):
        find_config_file("no/such.yaml")
    with pytest.raises(InputError, match="--config-file"):
        find_config_file("")


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


def test_augmentation_that_an_architecture_lacks(cfg):
    cfg.TEST.AUG.ENABLED = True
    check_augmentation(cfg)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(InputError, match=r"TEST\.AUG.*not for RetinaNet"):
        check_augmentation(cfg)


def test_weights_must_be_there(tmp_path):
    check_weights("")
    check_weights("ptq_det://shapes_mask_rcnn_float.safetensors")
    for missing in (str(tmp_path / "w.pth"), "ptq_det://other.safetensors"):
        with pytest.raises(InputError, match="not found"):
            check_weights(missing)
    (tmp_path / "w.pkl").write_bytes(b"")
    check_weights(str(tmp_path / "w.pkl") + "?matching_heuristics=True")


def test_weights_that_cannot_be_downloaded_say_so():
    with pytest.raises(InputError, match="could not be downloaded"):
        check_weights("http://127.0.0.1:9/weights.pkl")


def test_a_device_that_is_not_there_is_refused(cfg, monkeypatch):
    check_device(cfg)
    cfg.SOLVER.AMP.ENABLED = True
    check_device(cfg)
    cfg.MODEL.DEVICE = "mps"
    with pytest.raises(InputError, match=r"set SOLVER\.AMP\.ENABLED False"):
        check_device(cfg)
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"set MODEL\.DEVICE cpu"):
        check_device(cfg)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_device(cfg)


def test_a_config_is_read_with_overrides(repo, tmp_path):
    path = str(repo / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml")
    assert read_config(path, ["TERNARY.SPARSITY", "0.5"]).TERNARY.SPARSITY == 0.5
    with pytest.raises(InputError, match=r"shapes_mask_rcnn_ptq\.yaml or an override.*SPARSTY"):
        read_config(path, ["TERNARY.SPARSTY", "0.5"])
    for key in ("TERNARY.SPARSITY.RES4", "TERNARY.SKIP.X", "TERNARY.ENABLED.X", "MODEL.WEIGHTS.X"):
        with pytest.raises(InputError, match="or an override"):
            read_config(path, [key, "0.5"])
    with pytest.raises(InputError, match="or an override"):
        read_config(path, ["TERNARY.SPARSITY"])
    file = tmp_path / "levels.yaml"
    for text in ("TERNARY: {SPARSITY: {RES4: 0.5}}", "TERNARY: 5", "TERNARY: [1]", "- TERNARY"):
        file.write_text(text)
        with pytest.raises(InputError, match=r"levels\.yaml or an override"):
            read_config(str(file), [])
    with pytest.raises(InputError, match=r"^config file 'no\.yaml' not found"):
        read_config("no.yaml", [])


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


def test_there_is_something_to_train_and_a_place_for_it(cfg, tmp_path):
    check_output(cfg)
    (tmp_path / "file").write_text("")
    cfg.OUTPUT_DIR = str(tmp_path / "file")
    with pytest.raises(InputError, match=r"OUTPUT_DIR '.*file' cannot be written to"):
        check_output(cfg)
    cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER = str(tmp_path), 0
    with pytest.raises(InputError, match=r"MAX_ITER is 0.*--eval-only"):
        check_output(cfg)
