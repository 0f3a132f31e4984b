import subprocess
import sys


def test_public_names():
    import ptq_det

    assert {"add_ternary_config", "ternarize", "PTQHook", "TernaryTrainer"} <= set(ptq_det.__all__)
    assert all(hasattr(ptq_det, name) for name in ptq_det.__all__)


def test_without_detectron2_the_import_says_how_to_install_it():
    code = "import sys; sys.modules['detectron2'] = None; import ptq_det"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install" in done.stderr and "make venv" in done.stderr
