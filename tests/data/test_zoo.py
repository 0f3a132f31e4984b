import sys

import pytest
from detectron2 import model_zoo
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from ptq_det.data.zoo import zoo_config, zoo_file
from ptq_det.errors import InputError


@pytest.mark.parametrize(
    "name", ["common/train.py", "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"]
)
def test_lazy_configs_are_those_that_detectron2_gives(name, monkeypatch):
    given = model_zoo.get_config(name)
    for module in [each for each in sys.modules if each.startswith("detectron2.model_zoo")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    assert OmegaConf.to_yaml(zoo_config(name).train) == OmegaConf.to_yaml(given.train)


def test_what_the_zoo_does_not_have(tmp_path):
    assert zoo_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml").is_file()
    assert zoo_file("common") is None and zoo_file("no.yaml") is None
    for name in ("common/no.py", "COCO-Detection/retinanet_R_50_FPN_1x.yaml"):
        with pytest.raises(InputError, match=f"has no lazy config '{name}'"):
            zoo_config(name)


def test_this_package_s_own_configs_need_no_pkg_resources(repo, monkeypatch):
    for module in [each for each in sys.modules if each.startswith("detectron2.model_zoo")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    files = sorted((repo / "configs/lazy").glob("*.py"))
    assert len(files) >= 2
    for file in files:
        cfg = LazyConfig.load(str(file))
        assert cfg.train.init_checkpoint.startswith("detectron2://") and cfg.ternary.sparsity
