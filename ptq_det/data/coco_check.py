"""What in annotations of COCO's format would fail, or mislead, hours later."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

__all__ = ["Trouble", "check_coco"]

_KINDS = {"images": "pictures", "annotations": "annotations", "categories": "categories"}
_MANY = 50_000  # annotations, from which on the progress is shown


@dataclass
class Trouble:
    """Something that is wrong with entries of a file.

    Attributes:
        what: what is wrong, and what to do.
        count: of how many entries.
        first: the first of them, in words.
    """

    what: str
    count: int = 0
    first: str = ""

    def __str__(self):
        return self.what if not self.count else f"{self.count} {self.first} {self.what}"


def check_coco(path: str, masks: bool, polygons: bool, keypoints: int = 0) -> list[Trouble]:
    """Look through a file of annotations.

    Args:
        path: JSON file in COCO's format for detection.
        masks: whether masks are learned or evaluated.
        polygons: whether masks have to be polygons (``INPUT.MASK_FORMAT polygon``, of training
            sets); those of crowds need not be, which are not trained on.
        keypoints: how many an object has, where they are learned; else 0.

    Returns:
        What is wrong; empty where nothing is.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data.startswith(b"\xef\xbb\xbf"):
        return [Trouble("it begins with a byte-order mark; save it as UTF-8 without one")]
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        return [Trouble(f"it is no JSON ({error}); export it again")]
    lacking = [
        name
        for name in _KINDS
        if not isinstance(content, dict) or not isinstance(content.get(name), list)
    ]
    if lacking:
        lists = ", ".join(map(repr, lacking))
        return [Trouble(f"it lacks the lists {lists} of COCO's format; export it as COCO JSON")]
    found: dict[str, Trouble] = {}
    for kind, entry, what in _all_troubles(content, masks, polygons, keypoints):
        trouble = found.setdefault(what, Trouble(what))
        if not trouble.count:
            name = entry.get("id") if isinstance(entry, dict) else entry
            trouble.first = f"{_KINDS[kind]} (the first has the id {name!r})"
        trouble.count += 1
    return list(found.values())


def _all_troubles(content: dict, masks: bool, polygons: bool, keypoints: int) -> Iterator[tuple]:
    """Kind of entry, the entry, and what is wrong with it."""
    for kind in _KINDS:
        seen = set()
        for entry in content[kind]:
            if not isinstance(entry, dict):
                yield kind, entry, "are no JSON objects; export the file again"
                continue
            if type(entry.get("id")) is not int:
                yield kind, entry, "have an id that is no whole number; number them from 1 on"
            elif entry["id"] in seen:
                yield kind, entry, "have an id that was there before; give each its own"
            seen.add(entry.get("id") if isinstance(entry.get("id"), (int, str)) else None)
    yield from _of_categories(content["categories"])
    yield from _of_pictures(content["images"])
    yield from _of_annotations(content, masks, polygons, keypoints)


def _of_categories(categories: list) -> Iterator[tuple]:
    names = set()
    for entry in filter(lambda x: isinstance(x, dict), categories):
        if not isinstance(entry.get("name"), str):
            yield "categories", entry, "have no name; give each one"
        elif entry["name"] in names:
            yield "categories", entry, "have a name that was there before; keep one of each"
        names.add(str(entry.get("name")))


def _of_pictures(images: list) -> Iterator[tuple]:
    for entry in filter(lambda x: isinstance(x, dict), images):
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            yield "images", entry, "have no file_name; add it"
        elif "\\" in name:
            yield (
                "images",
                entry,
                "have a file_name with \\, as Windows has it; write / in its place",
            )
        for key in ("width", "height"):
            if type(entry.get(key)) is not int or entry[key] <= 0:
                yield "images", entry, f"have no {key} in pixels; add it"


def _of_annotations(content: dict, masks: bool, polygons: bool, keypoints: int) -> Iterator[tuple]:
    kind = "annotations"
    images, categories = (
        {entry.get("id") for entry in content[name] if isinstance(entry, dict) and _plain(entry)}
        for name in ("images", "categories")
    )
    annotations = [entry for entry in content[kind] if isinstance(entry, dict)]
    if masks and annotations and not any(entry.get("segmentation") for entry in annotations):
        yield (
            kind,
            annotations[0],
            ("and all others have boxes alone; set MODEL.MASK_ON False, or export masks too"),
        )
        masks = False
    progress = tqdm(
        annotations, "Checking annotations", leave=False, disable=len(annotations) < _MANY
    )
    for entry in progress:
        for key, known in (("image_id", images), ("category_id", categories)):
            value = entry.get(key)
            if type(value) is not int:
                yield kind, entry, f"have an {key} that is no whole number; write the id as one"
            elif value not in known:
                yield kind, entry, f"have an {key} that is not there; remove or mend them"
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            yield kind, entry, "have no bbox of four numbers (x, y, width, height); add it"
        elif box[2] < 0 or box[3] < 0:
            yield kind, entry, "have a bbox of negative size; it is x, y, width, height"
        # COCO's evaluation reads these two; where they are not there they are filled in.
        if entry.get("area") is not None and not _is_number(entry["area"]):
            yield kind, entry, "have an area that is no number; take it out, or write pixels"
        if entry.get("iscrowd") not in (None, 0, 1):
            yield kind, entry, "have an iscrowd that is not 0 or 1; write 0, or 1 for a crowd"
        if entry.get("ignore", 0) != 0:
            yield kind, entry, "have `ignore`, which Detectron2 does not read; take it out"
        points = entry.get("keypoints")
        if keypoints and not entry.get("iscrowd") and not _are_keypoints(points, keypoints):
            yield (
                kind,
                entry,
                f"have no keypoints of {keypoints} times x, y and visibility; set "
                "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS, or add them (zeros where none is seen)",
            )
        if masks:
            what = _of_mask(entry.get("segmentation"), polygons and not entry.get("iscrowd"))
            if what:
                yield kind, entry, what


def _of_mask(mask, polygons: bool) -> str | None:
    if isinstance(mask, dict):
        if "counts" not in mask or not isinstance(mask.get("size"), list):
            return "have an RLE mask without size and counts; export them again"
        return "have RLE masks; set INPUT.MASK_FORMAT bitmask" if polygons else None
    if not isinstance(mask, list) or not mask:
        return "have no mask beside others that have one; add it, or take the object out"
    if _is_number(mask[0]):
        return "have a polygon that is not in a list of polygons; write [[x, y, …]] for [x, y, …]"
    for polygon in mask:
        if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(_is_number, polygon)):
            return "have a polygon that is no list of x, y, x, y, …; export them again"
        if len(polygon) < 6:
            return "have a polygon of fewer than three points; take it out"
    return None


def _are_keypoints(points, count: int) -> bool:
    return isinstance(points, list) and len(points) == 3 * count and all(map(_is_number, points))


def _plain(entry: dict) -> bool:
    return isinstance(entry.get("id"), (int, str))


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
