import json
import time

import pytest
import yaml
from detectron2 import model_zoo
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


PLACES = {
    "WEIGHTS": "evil",
    "PRETRAINED": "evil.PKL",
    "CHECKPOINT": "evil.t7",
    "VOCAB": "evil.pickle",
    "HOST": "example.org",
    "NUM_PROCESSES": 4_000_000,
    "NUM_THREADS": 4_000_000,
    "N_JOBS": 64,
    "PORT": 80,
    "DATA_ROOT": "evil",
    "dataRoot": "evil",
    "FILENAMES": ["evil"],
    "CKPT": "evil",
    "init_path": "evil",
    "URL_OF_TEACHER": "evil",
    "Device": "cuda",
    "CACHE": ["evil"],
    "CACHE_DIRS": "evil",
    "PRETRAINED_WEIGHTS": "evil",
    "num_workers": 9,
    "DEVICE": "cuda",
    "FILE_NAME": "evil",
}


@pytest.mark.parametrize("key", PLACES)
@pytest.mark.parametrize("nodes", [("PROJECT",), ("PROJECT", "DEEPER", "STILL")], ids=len)
def test_no_place_and_no_count_of_processes_is_taken_at_any_depth(key, nodes):
    stored, cfg = {key: PLACES[key], "WIDTH": 5}, get_cfg()
    own = type(cfg)({key: type(PLACES[key])(), "WIDTH": 3})
    for node in reversed(nodes):
        stored, own = {node: stored}, type(cfg)({node: own})
    cfg.MODEL.update(own)
    node = merged({"MODEL": stored}, cfg).MODEL
    for name in nodes:
        node = node[name]
    assert node[key] == type(PLACES[key])() and node.WIDTH == 5
    node[key] = PLACES[key]  # of the one who packs
    written = json.loads(config_text(cfg))["MODEL"]
    for name in nodes:
        written = written[name]
    assert written == {"WIDTH": 5}


def test_words_of_honest_keys_are_not_taken_for_places():
    stored = json.loads(config_text(get_cfg()))["MODEL"]
    assert {"DEVICE", "WEIGHTS", "LOAD_PROPOSALS"} == set(get_cfg().MODEL) - set(stored)
    for node, values in stored.items():
        if isinstance(values, dict):
            assert values.keys() == get_cfg().MODEL[node].keys()
    keys = {
        "PROCESSED": 5,
        "PROPORTION": 5,
        "DIRECTION": 5,
        "VOCAB_SIZE": 5,
        "CLASS_WEIGHTS": [5],
        "SUPPORT": 5,
    }
    cfg = get_cfg()
    cfg.MODEL.PROJECT = type(cfg)({key: type(value)() for key, value in keys.items()})
    assert keys == merged({"MODEL": {"PROJECT": keys}}, cfg).MODEL.PROJECT


@pytest.mark.parametrize(
    "value",
    ["x.PKL", "x.t7", "x.Pickle", "x.pt ", "x.tar.GZ", "A.ONNX", "x.H5", "C:x", "s3://x", "a\\B",
     "www.evil", "evil.org", "Evil.COM", "127.0.0.1", "localhost", "x.JSON", "./x", "~"],
)  # fmt: skip
def test_a_text_that_looks_like_a_file_or_an_address_is_refused(value):
    cfg = get_cfg()
    cfg.MODEL.PROJECT = type(cfg)({"KIND": "x", "KINDS": ["x"]})
    for stored in ({"KIND": value}, {"KINDS": ["x", value]}):
        with pytest.raises(PackedFileError, match=r"its config cannot be read \(MODEL\.PROJECT"):
            merged({"MODEL": {"PROJECT": stored}}, cfg.clone())


@pytest.mark.parametrize("value", ["vit_base_patch16.augreg", "YUV-BT.601", "v1.5", "GN", "p2", ""])
def test_a_text_that_is_a_name_is_taken(value):
    cfg = get_cfg()
    cfg.MODEL.KIND = "x"
    assert value == merged({"MODEL": {"KIND": value}}, cfg).MODEL.KIND


def nested(name, value):
    """A config with one value, by its full name."""
    for key in reversed(name.split(".")):
        value = {key: value}
    return value


MANY = [[1] * 3000]
SIZES, RATIOS, ANGLES = (
    f"MODEL.ANCHOR_GENERATOR.{key}" for key in ("SIZES", "ASPECT_RATIOS", "ANGLES")
)


@pytest.mark.parametrize(
    "values",
    [
        {SIZES: MANY, RATIOS: MANY},
        {SIZES: [[1] * 60], RATIOS: [[1] * 60]},
        {SIZES: [1] * 60, RATIOS: [1] * 60},  # Detectron2 takes a plain list for each level
        {SIZES: [[1] * 11], RATIOS: [[1] * 10, [1]], ANGLES: [[1] * 10]},
        {SIZES: [[1] * 300], RATIOS: [[1] * 300], ANGLES: [[1] * 300]},
        {"INPUT.MIN_SIZE_TEST": 1 << 14, "INPUT.MAX_SIZE_TEST": 1 << 14},
        {"MODEL.PIXEL_MEAN": [1.0] * 4},
        {"MODEL.PIXEL_MEAN": [], "MODEL.PIXEL_STD": []},
        {"MODEL.PIXEL_MEAN": [1.0] * 1025, "MODEL.PIXEL_STD": [1.0] * 1025},
        {"MODEL.PIXEL_MEAN": ["a", "b", "c"]},
        {"MODEL.PIXEL_STD": [1.0, 1.0, 0.0]},
        {"MODEL.RPN.IN_FEATURES": ["p2", "p2"]},
        {"MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": [8] * 65},
        {"MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[1.0] * 65]},
        {"MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[0.0] * 4]},
        {"MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 7]},
        {"MODEL.RPN.IOU_THRESHOLDS": [0.3, -7]},
    ],
    ids=range(17),
)
def test_what_several_values_ask_for_is_bounded(values):
    stored = {"MODEL": {}, "INPUT": {}}
    for name, value in values.items():
        first, *between, last = name.split(".")
        node = stored[first]
        for key in between:
            node = node.setdefault(key, {})
        node[last] = value
    start = time.perf_counter()
    with pytest.raises(PackedFileError, match=r"m: its config cannot be read \((MODEL|INPUT)\."):
        merged(stored)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("INPUT.MIN_SIZE_TEST", value) for value in (1 << 22, -5, float("nan"))),
        *(("INPUT.MAX_SIZE_TEST", value) for value in (1 << 22, 0, -1)),
        *(("INPUT.FORMAT", value) for value in ("XYZ", "bgr", "P", "")),
        ("INPUT.MASK_FORMAT", "rle"),
        *(("TEST.DETECTIONS_PER_IMAGE", value) for value in (-7, 1 << 22, 2.5)),
        *(("MODEL.RPN.POST_NMS_TOPK_TEST", value) for value in (-1, 0, 1 << 22, 10.0)),
        ("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 1 << 22),
        *(("MODEL.RETINANET.TOPK_CANDIDATES_TEST", value) for value in (-1, 1 << 22)),
        *(("MODEL.ROI_HEADS.SCORE_THRESH_TEST", value) for value in (-0.1, 1.1, float("nan"))),
        ("MODEL.RPN.NMS_THRESH", 7),
        ("MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH", -1),
        ("MODEL.ROI_HEADS.POSITIVE_FRACTION", 2),
        *(("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", value) for value in (0, 65, 7.0)),
        ("MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 1 << 20),
        *(("MODEL.ROI_BOX_HEAD.NUM_FC", value) for value in (-1, 129)),
        ("MODEL.ROI_MASK_HEAD.NUM_CONV", 1 << 20),
        ("MODEL.RETINANET.NUM_CONVS", 1 << 20),
        ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 1 << 20),
        ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 1 << 20),
        ("MODEL.POINT_HEAD.SUBDIVISION_STEPS", 40),
    ],
)  # fmt: skip
def test_values_that_would_harm_later_are_refused_when_they_are_read(name, value):
    cfg = get_cfg()
    cfg.MODEL.POINT_HEAD = type(cfg)({"SUBDIVISION_STEPS": 5})
    with pytest.raises(PackedFileError, match=rf"its config cannot be read \({name} is"):
        merged(nested(name, value), cfg)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INPUT.MIN_SIZE_TEST", 0),
        ("INPUT.MAX_SIZE_TEST", 100_000),
        ("INPUT.FORMAT", "L"),
        ("TEST.DETECTIONS_PER_IMAGE", -1),
        ("TEST.DETECTIONS_PER_IMAGE", 3000),
        ("MODEL.RPN.PRE_NMS_TOPK_TEST", 12_000),
        ("MODEL.RPN.BOUNDARY_THRESH", -1),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[x, x * 1.26, x * 1.59] for x in (32, 64, 128, 256)]),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6, 0.7]),
    ],
)
def test_honest_values_are_taken(name, value):
    cfg = merged(nested(name, value))
    for key in name.split("."):
        cfg = cfg[key]
    assert (list(cfg) if isinstance(value, list) else cfg) == value


def test_bounds_hold_for_values_that_are_the_reader_s_own():
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TEST = 1 << 22  # or a model would be packed that nobody reads
    with pytest.raises(PackedFileError, match=r"INPUT\.MIN_SIZE_TEST is 4194304"):
        merged(config_text(cfg), cfg)


def test_configs_of_the_zoo_and_of_projects_are_read():
    deeplab = pytest.importorskip("detectron2.projects.deeplab")
    point_rend = pytest.importorskip("detectron2.projects.point_rend")
    names = [
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x",
        "Misc/cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv",
        "COCO-PanopticSegmentation/panoptic_fpn_R_101_3x",
        "COCO-Detection/fast_rcnn_R_50_FPN_1x",
        "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
    ]
    configs = [(model_zoo.get_config(f"{name}.yaml"), get_cfg()) for name in names]
    for add in (deeplab.add_deeplab_config, point_rend.add_pointrend_config):
        pair = get_cfg(), get_cfg()
        for cfg in pair:
            add(cfg)
        configs.append(pair)
    for cfg, reader in configs:
        found = merged(config_text(cfg), reader).MODEL
        cfg.MODEL.update({key: found[key] for key in ("WEIGHTS", "DEVICE", "LOAD_PROPOSALS")})
        assert found == cfg.MODEL


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
        json.dumps({"MODEL": {f"k{i}": 1 for i in range(10_001)}}),
        '{"MODEL": ' + '{"X": ' * 20 + "1" + "}" * 21,
        '{"MODEL": {"X": ' + "[" * 15 + "]" * 15 + "}}",
        "a: 1" + ":1" * 60_000,  # a number in base 60
        *("a: !!bool x", "a: !!int ''", "a: !!timestamp x", "a: !!float ''"),
    ],
    ids=range(25),
)
def test_texts_that_stall_or_are_none_are_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(PackedFileError, match="m: its config cannot be read"):
        merged(text)
    assert time.perf_counter() - start < 1


def test_what_is_just_within_the_bounds_of_a_text_is_read():
    for nested in ("[" * 14 + "]" * 14, json.dumps([1] * 19_900)):
        assert merged('{"MODEL": {"X": ' + nested + "}}") == get_cfg()
        assert merged("MODEL: {X: " + nested + "}") == get_cfg()


def test_aliases_that_detectron2_s_own_dump_writes_are_read():
    shared = [0.1, 0.2]
    dumped = yaml.safe_dump({"MODEL": {"PIXEL_MEAN": shared, "PIXEL_STD": shared}})
    assert "&id001" in dumped and "*id001" in dumped
    assert shared == merged(dumped).MODEL.PIXEL_STD
