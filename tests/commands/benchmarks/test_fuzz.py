import pytest

from ptq_det.commands.benchmarks.fuzz import FORGERIES, benchmark_fuzz, forge
from ptq_det.packing.container import Container
from tests.packing.test_old_versions import FILES


@pytest.fixture
def honest():
    return str(FILES / "version_2.safetensors")


def test_forgeries_differ_from_what_they_are_made_of(honest):
    content = Container.read(honest)
    seen, changed = set(), 0
    for seed in range(120):
        name, forged = forge(content, seed)
        assert name == forge(content, seed)[0]  # the same each time
        seen.add(name)
        same = forged.metadata == content.metadata and all(
            forged.tensors.get(key) is tensor for key, tensor in content.tensors.items()
        )
        changed += not same
    assert seen == set(FORGERIES) and changed > 110


def test_none_does_harm(honest, capsys):
    result = benchmark_fuzz(honest, files=60, workers=1, seed=7)
    assert result["loaded"] + result["refused"] == 60 and result["refused"] > 20
    assert "worst refusal" in capsys.readouterr().out


def test_harm_is_found(honest, monkeypatch):
    monkeypatch.setattr("ptq_det.commands.benchmarks.fuzz._SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="faults"):
        benchmark_fuzz(honest, files=10, workers=1, seed=7)
