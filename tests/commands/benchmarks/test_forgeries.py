import json
import random
from functools import reduce

import pytest

from ptq_det.commands.benchmarks.forgeries import FORGERIES, HARM, OF_MODULES, forge
from ptq_det.commands.benchmarks.given import MODULE, module_content
from ptq_det.packing.container import Container
from tests.packing.test_old_versions import FILES


@pytest.fixture
def honest():
    return str(FILES / "version_2.safetensors")


@pytest.fixture(scope="module")
def module():
    return module_content()


def forged(content, kind, key, count):
    """One text of the header as one kind of forgery leaves it."""
    for seed in range(count):
        copy = Container({}, dict(content.metadata))
        (FORGERIES | OF_MODULES)[kind](copy, random.Random(seed))
        yield copy.metadata[key]


def test_values_that_harm_are_among_the_forgeries(honest):
    content = Container.read(honest)
    content.metadata["config"] = "{}"
    configs = [json.loads(text) for text in forged(content, "harmful values", "config", 2000)]
    for name, values in HARM.items():
        *nodes, key = name.split(".")
        found = [reduce(lambda x, node: x.get(node, {}), nodes, each).get(key) for each in configs]
        assert all(value in found or value != value for value in values), name
    texts = list(forged(content, "config in JSON", "config", 60))
    assert max(text.count("[") for text in texts) > 1000  # deep, and wide
    assert max(text.count(",") for text in texts) > 20_000
    lists = forged(content, "number of classes", "classes", 60)
    assert {1, 5, 7, 900} <= {len(json.loads(text)) for text in lists}


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


def test_files_of_modules_have_forgeries_of_their_own(module):
    seen = {forge(module, seed)[0] for seed in range(200)}
    assert seen == {*FORGERIES, *OF_MODULES}
    fields = [json.loads(text) for text in forged(module, "parameters", "layers", 200)]
    assert {len(each["places"].get("shape", [])) for each in fields} >= {0, 1, 2, 3, 9}
    assert any("parameter" in each["last"] for each in fields)
    assert any("parameter" not in each["places"] for each in fields)
    calls = list(forged(module, "calls", "config", 200))
    assert any("builtins.eval" in text for text in calls)


def test_a_file_of_a_module_has_all_that_it_can_have(module):
    layers = json.loads(module.metadata["layers"])
    assert module.metadata["architecture"] == MODULE and "parameter" in layers["places"]
    assert "_target_" in json.loads(module.metadata["config"])
    kinds = {key: array.dtype.kind for key, array in module.tensors.items()}
    assert (kinds["steps"], kinds["mask"], kinds["norm.weight"]) == ("i", "b", "f")
    assert layers["body"]["norm"] == "body.norm" and layers["up"]["groups"] == 1
