"""Whether the pictures of a data set are there and as its annotations say, by their headers."""

import os
from collections.abc import Iterable

from PIL import Image
from tqdm import tqdm

from .picture_depth import bits_of

__all__ = ["check_pictures"]

_EXCHANGED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height
_ORIENTATION = 0x0112
# How files end. Of other formats only decoding tells whether they are whole, but of WebP, which
# Pillow does not open where it is cut.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "WEBP": b""}
_TAIL = 4096  # bytes at the end of a file that are looked at
_DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


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
            bits = bits_of(image, path)
            if image.mode in _DEEP or bits > 8:
                mode = f"mode {image.mode}" if image.mode in _DEEP else f"{bits} a channel"
                return f"its pixels have more than 8 bits ({mode}); save it in 8 bits"
            if image.mode == "LAB":
                return "its colours are L*a*b*, which are not read; save it in RGB"
            turned = image.format == "TIFF" and image.getexif().get(_ORIENTATION, 1) != 1
            if turned:  # by Pillow when it decodes, and then by Detectron2
                return "EXIF turns it, and a TIFF is turned twice then; save it turned"
            tail = _tail(path)
            end = _ENDS.get(image.format or "")
            if decode or end is None or not tail.rstrip(b"\0").endswith(end):
                image.load()
            width, height = image.size
            # Pillow decodes a whole PNG to look for EXIF behind its pixels, where few have it.
            has_exif = image.format != "PNG" or "exif" in image.info or b"eXIf" in tail
            if has_exif and image.getexif().get(_ORIENTATION) in _EXCHANGED:
                width, height = height, width
    except Image.DecompressionBombError as error:
        return f"it has too many pixels ({error}); scale it down, and its annotations"
    except Exception as error:  # decoders end in whatever they like
        return f"it cannot be read ({error}); get it again, or take it out"
    expected = record.get("width", width), record.get("height", height)
    if (width, height) != expected:
        return (
            f"it is {width} × {height} pixels as it is shown, and {expected[0]} × {expected[1]} in "
            "the annotations; where EXIF turns it, save it turned or write its size as shown"
        )
    return None


def _tail(path: str) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _TAIL))
        return file.read()
