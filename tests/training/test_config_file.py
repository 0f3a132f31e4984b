import sys

import pytest

from ptq_det.errors import InputError
from ptq_det.training.config_file import find_config_file, read_config


def test_a_config_is_found_on_disk_or_by_its_name_from_anywhere(repo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(repo / "configs/mask_rcnn_R50_ptq.yaml")
    assert find_config_file(path) == path
    assert find_config_file("mask_rcnn_R50_ptq.yaml") == path
    assert find_config_file("configs/mask_rcnn_R50_ptq.yaml") == path
    small = read_config("small_data/mask_rcnn_R50_224_ptq.yaml", [])
    assert small.MODEL.RESNETS.DEPTH == 50  # which a base of its base says
    assert find_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml").endswith("_1x.yaml")
    with pytest.raises(InputError, match=r"'no/such\.yaml' not found"):
        find_config_file("no/such.yaml")
    with pytest.raises(InputError, match="--config-file"):
        find_config_file("")


def test_a_file_that_is_there_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/mask_rcnn_R50_ptq.yaml", "COCO-Detection/retinanet_R_50_FPN_1x.yaml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("VERSION: 2")
        assert find_config_file(name) == name


def test_the_zoo_s_configs_are_found_without_pkg_resources(monkeypatch):
    monkeypatch.delitem(sys.modules, "detectron2.model_zoo", raising=False)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    assert read_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml", []).MODEL.RETINANET


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
