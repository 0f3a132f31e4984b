import pytest
from detectron2.config import CfgNode, get_cfg

from ptq_det import add_ternary_config
from ptq_det.errors import InputError
from ptq_det.quantizers import TTQ
from ptq_det.settings import TernarySettings


def config(**values) -> CfgNode:
    cfg = get_cfg()
    add_ternary_config(cfg)
    for key, value in values.items():
        cfg.TERNARY[key] = value
    return cfg


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("QUANTIZER", "ptq", '"PTQ"'),
        ("TARGET_MIB", -1.0, "at least 0"),
        ("SPARSITY", 1.0, "from 0 to 0.99"),
        ("SPARSITY", 0.9999, "from 0 to 0.99"),
        ("SPARSITY", -0.1, "from 0 to 0.99"),
        ("SPARSITY", float("nan"), "from 0 to 0.99"),
        ("SPARSITY", "0.8", "from 0 to 0.99"),
        ("SPARSITY_OVERRIDES", [["fc1", 2.0]], "from 0 to 0.99"),
        ("SPARSITY_OVERRIDES", ["fc1"], "pairs"),
        ("SPARSITY_OVERRIDES", [["fc1", 0.5, 1]], "pairs"),
        ("SPARSITY_OVERRIDES", [[["fc1", 0.5]]], "pairs"),
        ("SPARSITY_OVERRIDES", 5, "a list of pairs"),
        ("SKIP", [3], "name patterns"),
        ("SKIP", "*res2*", "a list of name patterns"),
        ("NORMALIZE", "channel", '"filter" or "layer"'),
        ("SCALE", "max", '"mean"'),
        ("THRESHOLD", "global", '"network"'),
        ("DECAY", -1.0, "at least 0"),
        ("DECAY", float("inf"), "at least 0"),
        ("DECAY_TOWARD", "codez", '"codes" or "zero"'),
        ("PRUNE_END", 1.5, "[0, 1]"),
        ("FREEZE_START", -0.3, "[0, 1]"),
        ("OPTIMIZER", "Adam", '"AdamW"'),
        ("BITS", 3, "2 or 4"),
        ("SIGMA", "x", "a number"),
        ("MATCH_SPARSITY", 1, "True or False"),
        ("ENGINE", "tpu", '"int8"'),
        ("FLOAT_LAYERS", "int4", '"int8"'),
        ("DISTILLATION", -1.0, "at least 0"),
        ("COMPENSATION", -1, "a number of batches"),
        ("COMPENSATION", 0.5, "a number of batches"),
    ],
)
def test_a_bad_value_is_refused_with_key_value_and_what_is_allowed(key, value, allowed):
    with pytest.raises(InputError) as error:
        TernarySettings.from_cfg(config(**{key: value}))
    message = str(error.value)
    assert f"TERNARY.{key} is " in message and allowed in message
    while isinstance(value, list):
        value = value[0]
    assert str(value) in message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["QUANTIZER", "TWN"], r"0 with TWN, which does not follow a sparsity"),
        (["THRESHOLD", "network", "COMPENSATION", 0], r"0 with one network's threshold"),
    ],
)
def test_a_size_is_refused_beside_what_it_would_not_agree_with(keys, message):
    values = {key.lower(): value for key, value in zip(keys[::2], keys[1::2], strict=True)}
    TernarySettings.make(**values)
    with pytest.raises(InputError, match=r"TERNARY\.TARGET_MIB is 5\.0; allowed: " + message):
        TernarySettings.make(target_mib=5.0, **values)


def test_an_unknown_key_is_refused():
    with pytest.raises(InputError, match=r"TERNARY\.SPARSTY is not a key.*SPARSITY"):
        TernarySettings.from_cfg(config(SPARSTY=0.5))


def test_a_part_of_a_node_is_refused():
    cfg = get_cfg()
    cfg.TERNARY = CfgNode({"ENABLED": True})
    with pytest.raises(InputError, match=r"lacks ACTIVATION_BITS, .*add_ternary_config"):
        TernarySettings.from_cfg(cfg)
    cfg.TERNARY = True
    with pytest.raises(InputError, match="TERNARY is True; it has keys of its own"):
        TernarySettings.from_cfg(cfg)


def test_codes_cannot_be_frozen_before_they_are_there():
    with pytest.raises(InputError, match=r"at least TERNARY\.PRUNE_END, which is 0\.5"):
        TernarySettings.from_cfg(config(COMPENSATION=0, PRUNE_END=0.5, FREEZE_START=0.3))


@pytest.mark.parametrize("values", [{"PRUNE_END": 0.1}, {"THRESHOLD": "network"}])
def test_compensation_excludes_a_pruning_stage_and_a_network_threshold(values):
    with pytest.raises(InputError, match=r"TERNARY\.COMPENSATION is 24.*0 with a pruning stage"):
        TernarySettings.from_cfg(config(**values))
    assert not TernarySettings.from_cfg(config(COMPENSATION=0, **values)).compensates


def test_a_network_threshold_needs_a_quantizer_that_follows_the_sparsity():
    values = {"THRESHOLD": "network", "COMPENSATION": 0, "QUANTIZER": "TWN"}
    with pytest.raises(InputError, match=r"THRESHOLD is 'network'; allowed: \"layer\" with TWN"):
        TernarySettings.from_cfg(config(**values))
    TernarySettings.from_cfg(config(**values, MATCH_SPARSITY=True))


def test_only_ptq_compensates():
    assert TernarySettings.from_cfg(config()).compensates
    assert not TernarySettings.from_cfg(config(QUANTIZER="TWN", PRUNE_END=0.3)).compensates


def test_a_quantizer_that_compensates_must_suit_it(monkeypatch):
    monkeypatch.setattr(TTQ, "compensates", True)
    with pytest.raises(InputError, match="quantizer TTQ says that it compensates, for which"):
        TernarySettings.from_cfg(config(QUANTIZER="TTQ", MATCH_SPARSITY=True))


def test_a_network_threshold_excludes_sparsities_of_layers():
    with pytest.raises(InputError, match=r"TERNARY\.THRESHOLD is 'network'"):
        TernarySettings.from_cfg(config(THRESHOLD="network", SPARSITY_OVERRIDES=[["a", 0.5]]))


def test_the_last_override_that_matches_wins():
    settings = TernarySettings.from_cfg(
        config(SPARSITY=0.8, SPARSITY_OVERRIDES=[["a.*", 0.5], ["a.b", 0.6]])
    )
    assert [settings.sparsity_of(n) for n in ("a.b", "a.c", "c")] == [0.6, 0.5, 0.8]


def test_defaults_serve_a_config_without_the_node():
    cfg = get_cfg()
    assert TernarySettings.from_cfg(cfg).sparsity == 0.8
    assert "TERNARY" not in cfg


def test_a_config_is_ternary_by_its_switch_or_by_a_builder():
    assert not TernarySettings.is_ternary_config(get_cfg())
    assert TernarySettings.is_ternary_config(config(ENABLED=True))
    cfg = config()
    cfg.MODEL.RPN.HEAD_NAME = "TernaryRPNHead"
    assert TernarySettings.is_ternary_config(cfg)


def test_squantizer_has_no_frozen_stage():
    with pytest.raises(InputError, match=r"TERNARY\.FREEZE_START is 0\.9; allowed: 1\.0"):
        TernarySettings.from_cfg(config(QUANTIZER="SQuantizer"))
    assert (
        TernarySettings.from_cfg(config(QUANTIZER="SQuantizer", FREEZE_START=1.0))
        .build_quantizer()
        .levels
        == 8
    )


def test_the_last_pattern_that_matches_counts():
    settings = TernarySettings.make(skip=["a*", "!a.b*", "a.b.c"])
    assert settings.reason_to_skip("a.x") == "TERNARY.SKIP has 'a*'"
    assert settings.reason_to_skip("a.b.d") is None
    assert settings.reason_to_skip("a.b.c") == "TERNARY.SKIP has 'a.b.c'"
    assert settings.reason_to_skip("x") is None
    assert settings.reason_to_skip("x", "it is the first") == "it is the first"
    assert settings.reason_to_skip("a.b", "it is the first") is None
