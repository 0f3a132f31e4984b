"""The config of a packed model: what of it travels, and what a reader takes of a file's.

A file is not trusted. What it gives is a model: architecture, input format and sizes, thresholds,
by a positive list of keys (docs/file_format.md). Everything else comes from the reader.
"""

import json
import math
import re

import yaml
from detectron2.config import CfgNode

from .config_bounds import check_bounds, check_sizes
from .container import PackedFileError

__all__ = [
    "config_text",
    "has_text",
    "is_harmless",
    "is_json",
    "may_travel",
    "merge_config",
    "parse_config",
]

# Keys below each node that may travel; None for all that name no path, address or process count.
_TAKEN = {
    "MODEL": None,
    "INPUT": {"FORMAT", "MASK_FORMAT", "MIN_SIZE_TEST", "MAX_SIZE_TEST"},
    "TEST": {"DETECTIONS_PER_IMAGE"},
}
_LEFT = {"WEIGHTS", "LOAD_PROPOSALS", "NUM_PROCESS"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # in the name of a key
_PLACE = re.compile(  # words of keys that name a path, an address or a count of processes
    r"(DATA|BASE|WORK|FILE|CKPT|CHECKPOINT|IMAGE|IMG|HOST|LOG|OUT|OUTPUT|SAVE|CACHE|TEMP|TMP|N)?"
    r"(FILE|PATH|DIR|DIRECTORY|DIRECTORIE|FOLDER|ROOT|URL|URI|HOST|PORT|ADDR|ADDRESS|SERVER|PROXY"
    r"|PROXIE|SOCKET|ENDPOINT|BUCKET|DOWNLOAD|PRETRAINED|CHECKPOINT|CKPT|SNAPSHOT|WORKER|THREAD"
    r"|PROC|JOB|GPU|DEVICE)(NAME)?(E?S)?|PROCESSES"
)
_CONTENT = re.compile(r"(WEIGHT|VOCAB|CACHE|SCRIPT|COMMAND)S?|VOCABULARY|CMD")  # numbers alone
_NAME = re.compile(r"[A-Za-z0-9_+\-. ]{0,100}")  # of a registered part, a feature, a norm, a mode
_FILE = re.compile(
    r"\.(pkl|pickle|joblib|dill|pth?|pt[lz2]|t7|bin|dat|data|rec|lmdb|db|sqlite3?|np[yz]|mat|h5"
    r"|hdf5?|keras|ya?ml|json[cl5]?|toml|ini|cfg|conf|txt|md|log|[ct]sv|xml|html?|parquet|arrow"
    r"|feather|msgpack|onnx|pbtxt|pb|tflite|tfrecords?|engine|plan|trt|gguf|params|caffemodel"
    r"|prototxt|model|weights|safetensors|ckpt?|checkpoint|tar|tgz|gz|bz2|xz|zst|lz4|zip|rar|7z"
    r"|whl|egg|py[cdwx]?|ipynb|so|dylib|dll|exe|jar|sh|bat|cmd|ps1|jpe?g|png|gif|bmp|tiff?|webp"
    r"|mp4|avi)\s*$|\.\.",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"^\s*(www\.|localhost\b|\d+(\.\d+){3})"
    r"|\.(com|org|net|io|edu|gov|info|dev|app|cloud|xyz|local|lan)\s*$",
    re.IGNORECASE,
)
_ERRORS = (  # YAML's own types, as "!!bool x", end in most of these
    *(yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    RecursionError,
)
_TEXT, _DEPTH, _VALUES, _SCALAR = 1 << 17, 16, 20_000, 4096
_LARGEST = 1 << 22  # magnitude of a whole number: sizes, counts, widths


def config_text(cfg: CfgNode) -> str:
    """JSON of the keys that travel in a file."""
    return json.dumps(_travelling(cfg), separators=(",", ":"), sort_keys=True)


def _travelling(cfg: CfgNode) -> dict:
    taken = {}
    for node, keys in _TAKEN.items():
        values = cfg.get(node, {})
        taken[node] = _plain({k: v for k, v in values.items() if keys is None or k in keys}, node)
    return taken


def _plain(node: dict, name: str) -> dict:
    return {
        key: _plain(value, f"{name}.{key}") if isinstance(value, dict) else value
        for key, value in node.items()
        if may_travel(key, value)
    }


def may_travel(key: str, value) -> bool:
    """Whether it names no path, address or process count, by the words of the key."""
    words = [word.upper() for word in _WORD.findall(key)]
    if key.upper() in _LEFT or any(map(_PLACE.fullmatch, words)):
        return False
    return not (has_text(value) and any(map(_CONTENT.fullmatch, words)))


def has_text(value) -> bool:
    """Whether a value is a text, or a list that has one."""
    return isinstance(value, str) or (isinstance(value, list | tuple) and any(map(has_text, value)))


def is_json(text: str) -> bool:
    """Whether a file's config is JSON; earlier releases wrote YAML."""
    return text.lstrip().startswith("{")


def merge_config(text: str, cfg: CfgNode, path: str) -> None:
    """Take over what a file's config says of a model.

    Keys that are not on the list, or that ``cfg`` does not have, are passed over: those of a
    project count only where the caller's config has them.

    Args:
        text: JSON, or the YAML of files of earlier releases.
        cfg: the reader's config, changed in place.
        path: file that it is from, for messages.

    Raises:
        PackedFileError: it is no config, too large, or has a value of another kind than ``cfg`` or
            beyond its bounds.
    """
    try:
        stored = parse_config(text)
        if not isinstance(stored, dict):
            raise ValueError("no node at its top")
        for node, keys in _TAKEN.items():
            values = stored.get(node, {})
            if not isinstance(values, dict):
                raise ValueError(f"{node} is no node")
            chosen = {k: v for k, v in values.items() if keys is None or k in keys}
            _merge(chosen, cfg[node], node)
        check_sizes(cfg)
    except _ERRORS as error:
        raise PackedFileError(path, f"its config cannot be read ({error})") from error


def parse_config(text: str):
    """What JSON or YAML of a bounded size says.

    Raises:
        ValueError: it is too large, or no JSON; YAML ends in ``_ERRORS``.
    """
    if len(text) > _TEXT:
        raise ValueError(f"{len(text)} characters")
    if is_json(text):
        stored = json.loads(text)
        _count_built(stored)
        return stored
    _count(text)
    return yaml.load(text, Loader=_Loader)


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _count(text: str) -> None:
    """Refuse YAML that is deep, or large once its aliases are written out, before it is built."""
    sizes: dict[str, int] = {}  # of what an anchor stands for
    open_nodes: list[list] = []  # anchor and nodes so far of each that is not closed yet
    total = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            open_nodes.append([event.anchor, 1])
            if len(open_nodes) > _DEPTH:
                raise ValueError(f"more than {_DEPTH} nodes inside each other")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"an alias of {event.anchor!r}, which is not there")
            size, anchor = sizes[event.anchor], None
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _SCALAR:  # a number in base 60 is read in quadratic time
                raise ValueError(f"a value of {len(event.value)} characters")
            size, anchor = 1, event.anchor
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, size = open_nodes.pop()
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        if open_nodes:
            open_nodes[-1][1] += size
        total = open_nodes[-1][1] if open_nodes else size
        if total > _VALUES:
            raise ValueError(f"more than {_VALUES} values")


def _count_built(stored) -> None:
    """The same bounds for JSON, which has no aliases: the length of its text bounds the parse."""
    level, depth, total = [stored], 0, 1
    while level := [node for node in level if isinstance(node, (dict, list))]:
        depth += 1
        total += sum(len(node) * (2 if isinstance(node, dict) else 1) for node in level)
        if depth > _DEPTH:
            raise ValueError(f"more than {_DEPTH} nodes inside each other")
        if total > _VALUES:
            raise ValueError(f"more than {_VALUES} values")
        level = [x for node in level for x in (node.values() if isinstance(node, dict) else node)]


def _merge(stored: dict, node: CfgNode, name: str) -> None:
    for key, value in stored.items():
        if not isinstance(key, str) or key not in node or not may_travel(key, value):
            continue
        full = f"{name}.{key}"
        if isinstance(node[key], CfgNode):
            if not isinstance(value, dict):
                raise ValueError(f"{full} is no node")
            _merge(value, node[key], full)
        else:
            node[key] = _checked(value, node[key], full)
            check_bounds(node[key], full)


def _checked(value, default, name: str):
    """A value of the kind that the default has."""
    if value == default and type(value) is type(default):
        return value
    match default:
        case bool():
            fits = isinstance(value, bool)
        case int() | float():
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        case str():
            fits = isinstance(value, str)
        case list() | tuple():
            fits = isinstance(value, list)
        case _:
            fits = not isinstance(value, dict)
    if not fits or not is_harmless(value):
        raise ValueError(f"{name} is {str(value)[:80]!r}")
    return _as_tuples(value, default)


def _as_tuples(value, default):
    """Lists as tuples where the default has tuples, which JSON and YAML do not know."""
    if not isinstance(value, list) or not isinstance(default, (list, tuple)):
        return value
    inner = default[0] if default else None
    return type(default)(_as_tuples(each, inner) for each in value)


def is_harmless(value, depth: int = _DEPTH) -> bool:
    """Whether it is made of bounded numbers and of names, of which none is a path."""
    if isinstance(value, list):
        return depth > 0 and all(is_harmless(each, depth - 1) for each in value)
    if isinstance(value, str):
        return bool(_NAME.fullmatch(value)) and not (_FILE.search(value) or _ADDRESS.search(value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) <= _LARGEST)
