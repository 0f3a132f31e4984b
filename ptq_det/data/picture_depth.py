"""How many bits a colour of a picture has, where Pillow gives eight and does not tell."""

import re

from PIL import Image

__all__ = ["bits_of"]

_HEADER = 4096  # bytes at the beginning of a file that are looked at
_TIFF_BITS = 258  # the tag BitsPerSample
_JPEG_2000_SIZES = b"\xff\x51"  # the marker SIZ
_COMMENT = re.compile(rb"#[^\r\n]*")


def bits_of(image: Image.Image, path: str) -> int:
    """Bits of the deepest channel as the file has it, 8 where that is not known.

    Args:
        image: opened; its pixels need not be read.
        path: of its file.
    """
    if image.format == "TIFF":
        return max(image.tag_v2.get(_TIFF_BITS) or (1,))
    read = _READERS.get(image.format or "")
    if read is None:
        return 8
    with open(path, "rb") as file:
        return read(file.read(_HEADER))


def _of_png(header: bytes) -> int:
    return header[24]  # in the chunk IHDR, which is the first


def _of_ppm(header: bytes) -> int:
    """From the greatest value, which is the fourth word; bitmaps (P1, P4) have none."""
    kind, *words = _COMMENT.sub(b" ", header).split(None, 4)[:4]
    return int(words[2]).bit_length() if kind in (b"P2", b"P3", b"P5", b"P6") else 8


def _of_sgi(header: bytes) -> int:
    return 8 * header[3]


def _of_jpeg_2000(header: bytes) -> int:
    """Three bytes a component stand behind marker, length, capabilities, and eight sizes."""
    place = header.find(_JPEG_2000_SIZES)
    if place < 0:
        return 8
    count = int.from_bytes(header[place + 38 : place + 40], "big")
    return max(((bits & 0x7F) + 1 for bits in header[place + 40 :: 3][:count]), default=8)


_READERS = {"PNG": _of_png, "PPM": _of_ppm, "SGI": _of_sgi, "JPEG2000": _of_jpeg_2000}
