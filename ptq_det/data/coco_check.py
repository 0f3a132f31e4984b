"""What in annotations of COCO's format would fail, or mislead, hours later."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from .coco_boxes import troubles_of_boxes
from .coco_masks import UNFILLED, are_numbers, is_compressed, is_number, troubles_of_mask, unfilled

__all__ = ["Trouble", "check_coco", "check_content", "class_names_of", "pictures_of", "read_coco"]

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


def check_coco(
    path: str, masks: bool, polygons: bool, keypoints: int = 0, objects: bool = True
) -> list[Trouble]:
    """Look through a file of annotations.

    Args:
        path: JSON file in COCO's format for detection.
        masks: whether masks are learned or evaluated.
        polygons: whether masks have to be polygons (``INPUT.MASK_FORMAT polygon``, of training
            sets); those of crowds need not be, which are not trained on.
        keypoints: how many an object has, where they are learned; else 0.
        objects: whether there has to be an object.

    Returns:
        What is wrong; empty where nothing is.
    """
    content, troubles = read_coco(path)
    return troubles or check_content(content, masks, polygons, keypoints, objects)


def read_coco(path: str) -> tuple[dict, list[Trouble]]:
    """Content of a file of annotations, and why it is not of COCO's format, if it is not."""
    with open(path, "rb") as file:
        data = file.read()
    if data.startswith(b"\xef\xbb\xbf"):
        return {}, [Trouble("it begins with a byte-order mark; save it as UTF-8 without one")]
    try:
        content = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return {}, [Trouble(f"it is not in UTF-8 ({error.reason}); save it as UTF-8")]
    except (ValueError, RecursionError) as error:
        return {}, [Trouble(f"it is no JSON ({error}); export it again")]
    lacking = [
        name
        for name in _KINDS
        if not isinstance(content, dict) or not isinstance(content.get(name), list)
    ]
    if lacking:
        lists = ", ".join(map(repr, lacking))
        return {}, [Trouble(f"it lacks the lists {lists} of COCO's format; export it as COCO JSON")]
    return content, []


def check_content(
    content: dict, masks: bool, polygons: bool, keypoints: int = 0, objects: bool = True
) -> list[Trouble]:
    """Look through what :func:`read_coco` has read; arguments and result as :func:`check_coco`."""
    found: dict[str, Trouble] = {}
    for kind, entry, what in _all_troubles(content, masks, polygons, keypoints):
        trouble = found.setdefault(what, Trouble(what))
        if not trouble.count:
            name = entry.get("id") if isinstance(entry, dict) else entry
            trouble.first = f"{_KINDS[kind]} (the first has the id {name!r})"
        trouble.count += 1
    return [*_of_the_whole(content, keypoints, objects), *found.values()]


def pictures_of(content: dict, root: str) -> list[dict]:
    """Names and sizes of the pictures whose entries are sound, as Detectron2's records."""
    return [
        {
            "file_name": os.path.join(root, entry["file_name"]),
            "width": entry["width"],
            "height": entry["height"],
        }
        for entry in content["images"]
        if isinstance(entry, dict) and not list(_of_pictures([entry]))
    ]


def class_names_of(content: dict) -> list[str] | None:
    """Names of the classes in the order of their ids, as Detectron2 has them, if all are sound."""
    categories = content["categories"]
    for entry in categories:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int:
            return None
    if any(_of_categories(categories)):
        return None
    return [entry["name"] for entry in sorted(categories, key=lambda x: x["id"])]


def _of_the_whole(content: dict, keypoints: int, objects: bool) -> Iterator[Trouble]:
    """What a file lacks."""
    if not content["images"]:
        yield Trouble("it has no pictures; take it out, or export it again")
    if not content["categories"]:
        yield Trouble("it has no categories; add the list of them, or export it again")
    singles = [x for x in content["annotations"] if isinstance(x, dict) and not x.get("iscrowd")]
    if objects and not singles:
        yield Trouble(
            "it has no annotations of single objects (iscrowd 0), so nothing is learned or "
            "evaluated; add some, or take the data set out"
        )
    elif objects and keypoints and not any(map(_shows_keypoints, singles)):
        yield Trouble(
            "it has no keypoint with a visibility above 0, so none is learned or evaluated; "
            "write 1 or 2 for those that are known"
        )


def _shows_keypoints(entry: dict) -> bool:
    points = entry.get("keypoints")
    return isinstance(points, list) and any(is_number(v) and v > 0 for v in points[2::3])


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
        points = entry.get("keypoints")
        if points and not (isinstance(points, list) and all(isinstance(x, str) for x in points)):
            yield "categories", entry, "have keypoints that are no list of names; write one"


def _of_pictures(images: list) -> Iterator[tuple]:
    kind, names = "images", set()
    for entry in filter(lambda x: isinstance(x, dict), images):
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            yield kind, entry, "have no file_name; add it"
        elif "\\" in name:
            yield kind, entry, "have a file_name with \\, as Windows has it; write / in its place"
        elif name in names:
            yield kind, entry, "have a file_name that was there before; keep one entry of each"
        names.add(str(name))
        for key in ("width", "height"):
            if type(entry.get(key)) is not int or entry[key] <= 0:
                yield kind, entry, f"have no {key} in pixels; add it"


def _of_annotations(content: dict, masks: bool, polygons: bool, keypoints: int) -> Iterator[tuple]:
    kind = "annotations"
    images, categories = (
        {entry["id"] for entry in content[name] if isinstance(entry, dict) and _plain(entry)}
        for name in ("images", "categories")
    )
    sizes = {
        entry["id"]: (entry["height"], entry["width"])
        for entry in content["images"]
        if isinstance(entry, dict) and _plain(entry) and not list(_of_pictures([entry]))
    }
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
    boxed, compressed = [], []
    for entry in progress:
        is_sound = True
        for key, known in (("image_id", images), ("category_id", categories)):
            value = entry.get(key)
            if type(value) is not int:
                yield kind, entry, f"have an {key} that is no whole number; write the id as one"
                is_sound = False
            elif value not in known:
                yield kind, entry, f"have an {key} that is not there; remove or mend them"
        box = entry.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not are_numbers(box):
            yield kind, entry, "have no bbox of four numbers (x, y, width, height); add it"
            is_sound = False
        elif box[2] < 0 or box[3] < 0:
            yield kind, entry, "have a bbox of negative size; it is x, y, width, height"
            is_sound = False
        if is_sound:
            boxed.append(entry)
        # COCO's evaluation reads these two; where they are not there they are filled in.
        if entry.get("area") is not None and not is_number(entry["area"]):
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
        mask = entry.get("segmentation")
        if masks:
            must_be_polygons = polygons and not entry.get("iscrowd")
            size = sizes.get(entry["image_id"]) if type(entry.get("image_id")) is int else None
            if is_compressed(mask):
                compressed.append(entry)
            for what in troubles_of_mask(mask, must_be_polygons, size):
                yield kind, entry, what
        elif mask and (what := _not_loaded(mask)):
            yield kind, entry, what
    for place in unfilled([entry["segmentation"] for entry in compressed]):
        yield kind, compressed[place], UNFILLED
    for entry, what in troubles_of_boxes(boxed, sizes):
        yield kind, entry, what


def _not_loaded(mask) -> str | None:
    """Why Detectron2 cannot load a mask, which it does where no masks are learned too."""
    if isinstance(mask, dict):
        whole = isinstance(mask.get("size"), list) and isinstance(mask.get("counts"), (str, list))
    else:
        whole = isinstance(mask, list) and all(isinstance(polygon, list) for polygon in mask)
    return None if whole else "have a mask that is neither polygons nor RLE; take it out"


def _are_keypoints(points, count: int) -> bool:
    return isinstance(points, list) and len(points) == 3 * count and are_numbers(points)


def _plain(entry: dict) -> bool:
    return isinstance(entry.get("id"), (int, str))
