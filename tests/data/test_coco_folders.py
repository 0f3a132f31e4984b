import shutil

from detectron2.data import DatasetCatalog, MetadataCatalog

from ptq_det.data import register_coco_folders


def test_folders_are_registered_by_name_and_split(pictures, tmp_path):
    folder = tmp_path / "toys"
    shutil.copytree(pictures / "annotations", folder / "annotations")
    shutil.copytree(pictures / "train", folder / "images")
    (tmp_path / "no_images/annotations").mkdir(parents=True)
    (tmp_path / "no_images/annotations/train.json").write_text("{}")
    assert register_coco_folders(str(tmp_path)) == ["toys_train", "toys_val"]
    assert register_coco_folders(str(tmp_path)) == []
    records = DatasetCatalog.get("toys_train")
    assert len(records) == 12 and records[0]["file_name"].startswith(str(folder / "images"))
    assert MetadataCatalog.get("toys_train").evaluator_type == "coco"


def test_a_folder_that_is_not_there_registers_nothing(tmp_path):
    assert register_coco_folders(str(tmp_path / "missing")) == []
