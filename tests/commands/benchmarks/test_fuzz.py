import json
import random
from functools import reduce

import pytest
import torch
from torch import nn

from ptq_det.commands.benchmarks.fuzz import _HARM, FORGERIES, _run, benchmark_fuzz, forge
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


def forged(content, kind, key, count):
    """One text of the header as one kind of forgery leaves it."""
    for seed in range(count):
        copy = Container({}, dict(content.metadata))
        FORGERIES[kind](copy, random.Random(seed))
        yield copy.metadata[key]


def test_values_that_harm_are_among_the_forgeries(honest):
    content = Container.read(honest)
    content.metadata["config"] = "{}"
    configs = [json.loads(text) for text in forged(content, "harmful values", "config", 2000)]
    for name, values in _HARM.items():
        *nodes, key = name.split(".")
        found = [reduce(lambda x, node: x.get(node, {}), nodes, each).get(key) for each in configs]
        assert all(value in found or value != value for value in values), name
    texts = list(forged(content, "config in JSON", "config", 60))
    assert max(text.count("[") for text in texts) > 1000  # deep, and wide
    assert max(text.count(",") for text in texts) > 20_000
    lists = forged(content, "number of classes", "classes", 60)
    assert {1, 5, 7, 900} <= {len(json.loads(text)) for text in lists}


def fails_at_pictures(*args):
    raise AssertionError("boxes of another kind")


def test_models_that_fail_at_their_first_picture_are_found():
    with torch.device("meta"):
        model = nn.Linear(1, 1)
    assert _run(model) == "loaded"  # which is no detector
    model.pixel_mean, model.forward = torch.zeros(3, 1, 1), fails_at_pictures
    assert _run(model) == "at a picture AssertionError: boxes of another kind"


@pytest.mark.parametrize("bound", ["_SECONDS", "_MEMORY"])
def test_harm_is_found(bound, honest, monkeypatch):
    monkeypatch.setattr(f"ptq_det.commands.benchmarks.fuzz.{bound}", -1.0)
    with pytest.raises(RuntimeError, match="faults"):
        benchmark_fuzz(honest, files=10, workers=1, seed=7)
