import pytest


@pytest.fixture(autouse=True)
def kernels_are_faster(monkeypatch):
    """The kernels run, whatever a busy CPU with VNNI or AMX would measure of these small models."""
    monkeypatch.setattr("ptq_det.inference.sparse.engine.faster_by_onednn", lambda model: 0.0)
