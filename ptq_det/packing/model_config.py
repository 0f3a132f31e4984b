"""The config of a packed model: what of it travels, and what a reader takes of a file's.

A file is not trusted. What it gives is a model: architecture, input format and sizes, thresholds,
by a positive list of keys (docs/file_format.md). Everything else comes from the reader.
"""

import json
import math
import re

import yaml
from detectron2.config import CfgNode

from .config_bounds import check_bounds
from .container import PackedFileError

__all__ = ["config_text", "merge_config"]

# Keys below each node that may travel; None for all that name no path, address or process count.
_TAKEN = {
    "MODEL": None,
    "INPUT": {"FORMAT", "MASK_FORMAT", "MIN_SIZE_TEST", "MAX_SIZE_TEST"},
    "TEST": {"DETECTIONS_PER_IMAGE"},
}
_LEFT = {"DEVICE", "WEIGHTS", "LOAD_PROPOSALS"}
_PLACE = re.compile(  # words in the names of keys
    r"(^|_)(FILE|PATH|DIR|DIRECTORY|FOLDER|ROOT|URL|URI|HOST|PORT|ADDRESS|ADDR|SERVER|PROXY|SOCKET"
    r"|WORKER|THREAD|PROCESS|PROC|GPU|PRETRAINED|CHECKPOINT|CKPT|VOCAB|CACHE|DOWNLOAD)(E?S)?(_|$)",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z0-9_+\-. ]{0,100}")  # of a registered part, a feature, a norm, a mode
_FILE = re.compile(
    r"\.(pkl|pickle|pth?|pt[lz]|t7|bin|np[yz]|ya?ml|json|txt|csv|xml|h5|hdf5|onnx|pb|tflite|params"
    r"|caffemodel|model|safetensors|ckpt|tar|tgz|gz|bz2|xz|zip|7z|py|pyc|so|dll|sh|jpe?g|png)$|\.\.",
    re.IGNORECASE,
)
_TEXT, _DEPTH, _NODES = 1 << 17, 16, 20_000
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
        if _may_travel(key)
    }


def _may_travel(key: str) -> bool:
    return not (_PLACE.search(key) or key.upper() in _LEFT)


def merge_config(text: str, cfg: CfgNode, path: str) -> None:
    """Take over what a file's config says of a model.

    Keys that are not on the list, or that ``cfg`` does not have, are passed over: those of a
    project count only where the caller's config has them.

    Args:
        text: JSON, or the YAML of files of earlier releases.
        cfg: the reader's config, changed in place.
        path: file that it is from, for messages.

    Raises:
        PackedFileError: it is no config, too large, or has a value of another kind than ``cfg``.
    """
    try:
        stored = _parse(text)
        if not isinstance(stored, dict):
            raise ValueError("no node at its top")
        for node, keys in _TAKEN.items():
            values = stored.get(node, {})
            if not isinstance(values, dict):
                raise ValueError(f"{node} is no node")
            chosen = {k: v for k, v in values.items() if keys is None or k in keys}
            _merge(chosen, cfg[node], node)
        check_bounds(cfg)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise PackedFileError(path, f"its config cannot be read ({error})") from error


def _parse(text: str):
    if len(text) > _TEXT:
        raise ValueError(f"{len(text)} characters")
    if text.lstrip().startswith("{"):
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
        if total > _NODES:
            raise ValueError(f"more than {_NODES} values")


def _count_built(stored) -> None:
    """The same bounds for JSON, which has no aliases: its text bounds the work before."""
    level, total = [stored], 0
    for _ in range(_DEPTH + 1):
        total += len(level)
        if total > _NODES:
            raise ValueError(f"more than {_NODES} values")
        parts = (x.values() if isinstance(x, dict) else x for x in level if _has_parts(x))
        level = [each for part in parts for each in part]
    if level:
        raise ValueError(f"more than {_DEPTH} nodes inside each other")


def _has_parts(value) -> bool:
    return isinstance(value, (dict, list))


def _merge(stored: dict, node: CfgNode, name: str) -> None:
    for key, value in stored.items():
        if not isinstance(key, str) or key not in node or not _may_travel(key):
            continue
        full = f"{name}.{key}"
        if isinstance(node[key], CfgNode):
            if not isinstance(value, dict):
                raise ValueError(f"{full} is no node")
            _merge(value, node[key], full)
        else:
            node[key] = _checked(value, node[key], full)


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
    if not fits or not _is_harmless(value, _DEPTH):
        raise ValueError(f"{name} is {str(value)[:80]!r}")
    return _as_tuples(value, default)


def _as_tuples(value, default):
    """Lists as tuples where the default has tuples, which JSON and YAML do not know."""
    if not isinstance(value, list) or not isinstance(default, (list, tuple)):
        return value
    inner = default[0] if default else None
    return type(default)(_as_tuples(each, inner) for each in value)


def _is_harmless(value, depth: int) -> bool:
    """Whether it is made of bounded numbers and of names, of which none is a path."""
    if isinstance(value, list):
        return depth > 0 and all(_is_harmless(each, depth - 1) for each in value)
    if isinstance(value, str):
        return _NAME.fullmatch(value) is not None and not _FILE.search(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) <= _LARGEST)
