import json
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


def test_keypoints_are_named_as_in_the_annotations(pictures, tmp_path):
    folder = tmp_path / "faces"
    shutil.copytree(pictures / "val", folder / "images")
    content = json.loads((pictures / "annotations/val.json").read_text())
    names = ["left_eye", "right_eye", "nose"]
    for entry in content["annotations"]:
        entry["keypoints"] = [1, 2, 2] * 3
    content["categories"][0]["keypoints"] = names
    (folder / "annotations").mkdir()
    (folder / "annotations/val.json").write_text(json.dumps(content))
    assert register_coco_folders(str(tmp_path)) == ["faces_val"]
    records = DatasetCatalog.get("faces_val")
    assert records[0]["annotations"][0]["keypoints"][0] == 1.5  # as Detectron2 has it
    metadata = MetadataCatalog.get("faces_val")
    assert metadata.keypoint_names == names
    assert metadata.keypoint_flip_map == [("left_eye", "right_eye")]
