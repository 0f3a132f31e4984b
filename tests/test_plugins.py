import os
import subprocess
import sys

import pytest

from ptq_det import plugins
from ptq_det.errors import InputError
from ptq_det.plugins import base_config, import_plugin

MODULE = """
from ptq_det import add_ternary_config  # may be there: a second call adds nothing
def add_own_config(cfg, value=3):
    cfg.MODEL.OWN = value
def add_two_config(cfg, other):
    raise AssertionError("takes more than a config")
def load_own_config(cfg):
    raise AssertionError("named otherwise")
add_nothing_config = None
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module in a folder that Python looks in; it is forgotten afterwards."""
    (tmp_path / "own_project.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PTQ_DET_PLUGINS", "")
    monkeypatch.setattr(plugins, "_plugins", {})
    yield "own_project"
    sys.modules.pop("own_project", None)


def test_a_plugin_s_keys_join_the_config(module):
    assert "OWN" not in base_config().MODEL
    import_plugin(module)
    assert base_config().MODEL.OWN == 3
    import_plugin(module)
    assert os.environ["PTQ_DET_PLUGINS"] == module  # for processes that are started from here


def test_a_module_that_cannot_be_imported_is_named(module, tmp_path):
    (tmp_path / "half.py").write_text("import no_such_part")
    for name in ("no_such_module", "own_project.part"):
        with pytest.raises(InputError, match=rf"there is no module '{name}' .* PYTHONPATH"):
            import_plugin(name)
    with pytest.raises(InputError, match=r"module 'half' .* cannot be imported: .*no_such_part"):
        import_plugin("half")
    assert os.environ["PTQ_DET_PLUGINS"] == ""


def test_the_environment_and_the_option_are_one(module, repo, tmp_path):
    code = "import ptq_det; from ptq_det.plugins import base_config; print(base_config().MODEL.OWN)"
    environment = {**os.environ, "PTQ_DET_PLUGINS": f" {module} ,"}
    environment["PYTHONPATH"] = os.pathsep.join([str(repo), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.stdout.strip() == "3", done.stderr
