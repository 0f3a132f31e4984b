import json
import time

import pytest
import yaml
from detectron2.config import get_cfg

from ptq_det import add_ternary_config
from ptq_det.packing import PackedFileError
from ptq_det.packing.model_config import config_text, merge_config


def merged(stored, cfg=None):
    cfg = cfg or get_cfg()
    text = stored if isinstance(stored, str) else json.dumps(stored)
    merge_config(text, cfg, "m")
    return cfg


def test_a_model_travels_and_nothing_else():
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.MODEL.RESNETS.DEPTH, cfg.INPUT.FORMAT, cfg.TEST.DETECTIONS_PER_IMAGE = 101, "RGB", 7
    cfg.MODEL.WEIGHTS = cfg.OUTPUT_DIR = "/secret/place"
    cfg.MODEL.DEVICE, cfg.DATALOADER.NUM_WORKERS = "cuda", 64
    text = config_text(cfg)
    assert "secret" not in text and set(json.loads(text)) == {"MODEL", "INPUT", "TEST"}
    found = merged(text)
    assert found.MODEL.RESNETS.DEPTH == 101 and found.INPUT.FORMAT == "RGB"
    assert found.TEST.DETECTIONS_PER_IMAGE == 7
    expected = cfg.MODEL.clone()
    expected.WEIGHTS, expected.DEVICE = get_cfg().MODEL.WEIGHTS, get_cfg().MODEL.DEVICE
    assert expected == found.MODEL  # tuples come back as tuples
    assert found.DATALOADER == get_cfg().DATALOADER


@pytest.mark.parametrize(
    ("node", "key", "value"),
    [
        ("MODEL", "LOAD_PROPOSALS", True),
        ("MODEL", "WEIGHTS", "http://evil/x.pkl"),
        ("MODEL", "DEVICE", "cuda:7"),
        ("DATASETS", "PROPOSAL_FILES_TEST", ["/evil/x.pkl"]),
        ("DATASETS", "TEST", ["coco_2017_val"]),
        ("DATALOADER", "NUM_WORKERS", 4096),
        ("SOLVER", "IMS_PER_BATCH", 4096),
        ("INPUT", "MIN_SIZE_TRAIN", [3]),
        ("TEST", "EVAL_PERIOD", 1),
    ],
)
def test_what_is_not_on_the_list_is_passed_over(node, key, value):
    default = get_cfg()
    for text in (json.dumps({node: {key: value}}), yaml.safe_dump({node: {key: value}})):
        assert merged(text) == default
    assert merged({"OUTPUT_DIR": "/evil", "VERSION": 9, "SEED": 3}) == default


def test_keys_of_a_project_count_where_the_reader_has_them():
    stored = {"MODEL": {"POINT_HEAD": {"NUM_FC": 5, "INIT_FILE": "evil.pkl"}}}
    assert merged(stored) == get_cfg()
    cfg = get_cfg()
    cfg.MODEL.POINT_HEAD = type(cfg)({"NUM_FC": 3, "INIT_FILE": ""})
    found = merged(stored, cfg)
    assert found.MODEL.POINT_HEAD.NUM_FC == 5 and found.MODEL.POINT_HEAD.INIT_FILE == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("WEIGHTS", "evil"),
        ("PRETRAINED", "evil"),
        ("PRETRAINED_WEIGHTS", "evil"),
        ("CHECKPOINT", "evil"),
        ("CKPT", "evil"),
        ("VOCAB", "evil"),
        ("HOST", "example.org"),
        ("PORT", 80),
        ("NUM_PROCESSES", 4_000_000),
        ("NUM_THREADS", 9),
        ("num_workers", 9),
        ("DATA_ROOT", "evil"),
        ("CACHE_DIRS", "evil"),
        ("DEVICE", "cuda"),
        ("FILE_NAME", "evil"),
    ],
)
def test_no_key_of_a_path_an_address_or_a_process_count_passes_however_deep(key, value):
    cfg = get_cfg()
    kind = type(value)()
    cfg.MODEL.PLUGIN = type(cfg)({key: kind, "DEEP": type(cfg)({key: kind}), "PROCESSED": 0})
    stored = {key: value, "DEEP": {key: value}, "PROCESSED": 3}
    found = merged({"MODEL": {"PLUGIN": stored}}, cfg)
    assert found.MODEL.PLUGIN[key] == found.MODEL.PLUGIN.DEEP[key] == kind
    assert found.MODEL.PLUGIN.PROCESSED == 3


@pytest.mark.parametrize(
    "value",
    [
        "evil.PKL",
        "evil.t7",
        "evil.pickle",
        "evil.Onnx",
        "/etc/passwd",
        "a/b",
        "..",
        "x.pkl",
        "http://a",
        "~root",
        "a\\b",
        3,
        None,
        ["a"],
        {"a": 1},
    ],
)
def test_a_name_is_no_path_and_of_the_kind_of_its_default(value):
    with pytest.raises(PackedFileError, match="its config cannot be read"):
        merged({"MODEL": {"BACKBONE": {"NAME": value}}})


@pytest.mark.parametrize("value", [1 << 40, -(1 << 40), "12", [1], True, float("nan"), 1e400])
def test_numbers_are_bounded_and_finite(value):
    with pytest.raises(PackedFileError, match="its config cannot be read"):
        merged({"MODEL": {"ROI_HEADS": {"NUM_CLASSES": value}}})


def bomb(depth=9, width=9):
    """412 bytes that stand for ten to the ninth values."""
    lines = ["a: &a [x]"]
    for i in range(depth):
        before, name = chr(ord("a") + i), chr(ord("b") + i)
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * width)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(),
        "a: &a [*a]",
        "a: *nowhere",
        "a: " + "[" * 30 + "]" * 30,
        "[" * 60_000,
        "a: " + "x" * 200_000,
        "\n".join(f"k{i}: 1" for i in range(20_001)),
        "MODEL: [",
        "- 1",
        "3",
        "",
        "MODEL: 3",
        "!!python/object/apply:os.system ['true']",
        "MODEL: {BACKBONE: 3}",
        '{"MODEL": ' + "[" * 50_000,
        '{"MODEL": [1]}',
        json.dumps({"MODEL": {"X": [1] * 20_001}}),
        '{"MODEL": ' + '{"X": ' * 20 + "1" + "}" * 21,
    ],
    ids=range(18),
)
def test_texts_that_stall_or_are_none_are_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(PackedFileError, match="m: its config cannot be read"):
        merged(text)
    assert time.perf_counter() - start < 1


def test_aliases_that_detectron2_s_own_dump_writes_are_read():
    shared = [0.1, 0.2]
    dumped = yaml.safe_dump({"MODEL": {"PIXEL_MEAN": shared, "PIXEL_STD": shared}})
    assert "&id001" in dumped and "*id001" in dumped
    assert shared == merged(dumped).MODEL.PIXEL_STD
