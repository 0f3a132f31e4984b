import pytest

from ptq_det.engines import DEFAULT_ENGINE, ENGINE_REGISTRY, Engine, engine_named
from ptq_det.errors import InputError


def test_engines_have_the_names_that_they_say():
    names = [name for name, _ in ENGINE_REGISTRY]
    assert names[:2] == ["float", "int8"] and DEFAULT_ENGINE in names
    for name, kind in ENGINE_REGISTRY:
        assert isinstance(engine_named(name), kind) and kind.name == name


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="the engine 'tpu' is not known; there are float, int8"):
        engine_named("tpu")


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(ENGINE_REGISTRY, "_obj_map", dict(ENGINE_REGISTRY._obj_map))

    class Other(Engine):
        name = "float"

        def why_not(self, packed, device): ...

        def build(self, packed, device): ...

    with pytest.raises(AssertionError, match="already registered"):
        ENGINE_REGISTRY.register()(Other)
    del Other.name
    with pytest.raises(InputError, match="the engine Other has no name"):
        ENGINE_REGISTRY.register(Other)
    Other.name = "other"
    assert ENGINE_REGISTRY.register(Other) is Other and engine_named("other").about() == ""
