from detectron2.config import get_cfg

from ptq_det import add_ternary_config


def test_only_the_node_is_added_and_a_second_call_keeps_values(repo):
    cfg = get_cfg()
    stock = cfg.dump()
    add_ternary_config(cfg)
    cfg.TERNARY.SPARSITY = 0.5
    add_ternary_config(cfg)
    assert cfg.TERNARY.SPARSITY == 0.5
    del cfg["TERNARY"]
    assert cfg.dump() == stock


def test_every_key_has_a_comment(repo):
    lines = (repo / "ptq_det/config.py").read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if line.startswith("    cfg.TERNARY.")]
    assert len(keys) > 10
    for i in keys:
        above = lines[i - 1].strip()
        assert above.startswith("#") or "cfg.TERNARY." in above, lines[i]
