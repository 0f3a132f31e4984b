import pytest

from ptq_det.errors import InputError
from ptq_det.training.config_file import find_config_file, read_config


def test_a_config_is_found_on_disk_or_in_the_model_zoo(repo):
    path = str(repo / "configs/mask_rcnn_R50_ptq.yaml")
    assert find_config_file(path) == path
    assert find_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml").endswith("_1x.yaml")
    with pytest.raises(InputError, match=r"'no/such\.yaml' not found"):
        find_config_file("no/such.yaml")
    with pytest.raises(InputError, match="--config-file"):
        find_config_file("")


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
