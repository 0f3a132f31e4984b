"""Whether the pictures of a data set are there and as its annotations say, by their headers."""

import os
from collections.abc import Iterable

from PIL import Image
from tqdm import tqdm

__all__ = ["check_pictures"]

_TURNED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height
_ORIENTATION = 0x0112
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096  # bytes at the end of a file in which its end is looked for
_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


def check_pictures(records: Iterable[dict], decode: bool = False) -> list[str]:
    """Look at the headers of pictures.

    Args:
        records: of Detectron2's data sets: ``file_name``, and ``width`` and ``height`` where they
            are known.
        decode: read the pixels too.

    Returns:
        What is wrong, a line a picture, with what to do.
    """
    records, troubles = list(records), []
    for record in tqdm(records, "Checking pictures", leave=False, disable=len(records) < 1000):
        what = _trouble_of(record, decode)
        if what:
            troubles.append(f"{record['file_name']}: {what}")
    return troubles


def _trouble_of(record: dict, decode: bool) -> str | None:
    path = record["file_name"]
    if not os.path.isfile(path):
        return "it is not there"
    try:
        with Image.open(path) as image:
            if image.mode in _MODES:
                return f"its pixels have more than 8 bits (mode {image.mode}); save it in 8 bits"
            if decode or _may_be_cut(path, image.format):
                image.load()
            width, height = image.size
            # Pillow decodes a whole PNG to look for EXIF behind its pixels, where few have it.
            has_exif = image.format != "PNG" or "exif" in image.info
            if has_exif and image.getexif().get(_ORIENTATION) in _TURNED:
                width, height = height, width
    except Image.DecompressionBombError as error:
        return str(error)
    except Exception as error:  # decoders end in whatever they like
        return f"it cannot be read ({error}); get it again, or take it out"
    expected = record.get("width", width), record.get("height", height)
    if (width, height) != expected:
        return (
            f"it is {width} × {height} pixels as it is shown, and {expected[0]} × {expected[1]} in "
            "the annotations; where EXIF turns it, save it turned or write its size as shown"
        )
    return None


def _may_be_cut(path: str, kind: str | None) -> bool:
    end = _ENDS.get(kind or "")
    if end is None:
        return False
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _TAIL))
        return end not in file.read()
