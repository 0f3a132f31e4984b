"""What in the records of a data set that a function gives would fail hours later."""

import os
from collections.abc import Iterable, Iterator

__all__ = ["check_records"]

_MASKS = ("sem_seg_file_name", "pan_seg_file_name")


def check_records(
    records: list, classes: int | None = None, evaluated: bool = False, pixels: bool = False
) -> tuple[list[str], list[dict]]:
    """Look through what a registered function gives, pictures aside.

    Args:
        records: what it gave.
        classes: how many the model has, or None where that is not known.
        evaluated: whether the evaluation is to know the records by their ``image_id``.
        pixels: whether classes of pixels are learned or evaluated.

    Returns:
        What is wrong, with what to do; and the records that name a picture.
    """
    if not records:
        return ["it has no pictures; give a list of records, one a picture"], []
    counts: dict[str, int] = {}
    first: dict[str, int] = {}
    named = []
    for place, record in enumerate(records):
        found = list(_of_record(record, classes, evaluated, pixels))
        if isinstance(record, dict) and _is_text(record.get("file_name")):
            named.append(record)
        for what in found:
            counts[what] = counts.get(what, 0) + 1
            first.setdefault(what, place)
    lines = [
        f"{count} times, first in record {first[what]} (of 0 to {len(records) - 1}): {what}"
        for what, count in counts.items()
    ]
    numbers = [x["image_id"] for x in named if evaluated and x.get("image_id") is not None]
    if len(set(map(repr, numbers))) < len(numbers):
        lines.append("some records have the same image_id; give each its own")
    return lines, named


def _of_record(record, classes: int | None, evaluated: bool, pixels: bool) -> Iterator[str]:
    if not isinstance(record, dict) or not _is_text(record.get("file_name")):
        yield "it is no dict with a file_name; add it"
        return
    objects = record.get("annotations")
    if evaluated and objects is not None and record.get("image_id") is None:
        yield "it has no image_id, which the evaluation reads; add it"
    if objects is not None and not all(_is_size(record.get(key)) for key in ("width", "height")):
        yield "it has no width and height in pixels; add them"
    if pixels and "sem_seg_file_name" not in record:
        yield "it has no sem_seg_file_name, a picture of the classes of its pixels; add it"
    for key in _MASKS:
        if key in record and not os.path.isfile(str(record[key])):
            yield f"its {key} is not there; mend the path, or get the file"
    yield from dict.fromkeys(_of_objects(objects or (), classes))


def _of_objects(objects: Iterable, classes: int | None) -> Iterator[str]:
    for entry in objects:
        if not isinstance(entry, dict):
            yield "an annotation is no dict; give bbox, bbox_mode and category_id"
            continue
        if "bbox" not in entry or "bbox_mode" not in entry:
            yield "an annotation lacks bbox or bbox_mode; add it, e.g. BoxMode.XYXY_ABS"
        number = entry.get("category_id")
        if not _is_whole(number) or number < 0:
            yield "a category_id is no whole number from 0 on; number classes from 0 on"
        elif classes is not None and number >= classes:
            yield (
                f"a category_id is above {classes - 1}, the last of the model's {classes} classes; "
                "number classes from 0 on, or set NUM_CLASSES"
            )


def _is_text(value) -> bool:
    return isinstance(value, (str, os.PathLike))


def _is_whole(value) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _is_size(value) -> bool:
    return _is_whole(value) and value > 0
