"""What a raw may be made of, looked at before anything is made of it.

A file of a few kB can promise gigabytes, or billions of axes, which the reader of FITS would try to have.
This reads the cards that say how large things are, and nothing else. FITS 4.0, sections 4.4 and 10.
"""

import re
from pathlib import Path
from typing import BinaryIO, Final

from prompt_processing.domain.errors import RawError

MAX_PIXELS: Final = 40_000_000
"""Size above which a raw is not read; a detector of LSSTCam has 18 million pixels with its overscan."""
MAX_HDUS: Final = 80
MAX_HEADER: Final = 1 << 20
"""Longest header [bytes]; those of the cameras have some 30 kB."""
MAX_COLUMNS: Final = 6
"""Most columns of a tile-compressed image."""
_BLOCK: Final = 2880
_CARD: Final = 80
_NUMBER: Final = re.compile(rb"([A-Z0-9]+) *= *(\S[^/]*)")
_SIZES: Final = re.compile(rb"Z?NAXIS[0-9]*|BITPIX|PCOUNT|GCOUNT|TFIELDS|ZTILE[0-9]+|THEAP")
_ALLOWED: Final = {"BITPIX": (8, 16, 32, 64, -32, -64), "GCOUNT": (1,)}
# Tiles of these say by themselves how large they are only when they are inflated.
_INFLATES: Final = (b"GZIP", b"UNCOMPRESSED")


def check_structure(path: Path, *, first_only: bool = False) -> None:
    """Refuse a file that would be large, or endless, when it is read.

    Parameters
    ----------
    path
        Local file.
    first_only
        Whether only the first HDU is to be read.

    Raises
    ------
    RawError
        If it is not made as a raw is; the message names the file, the HDU and the reason.
    """
    size = path.stat().st_size
    pixels = start = number = 0
    with path.open("rb") as stream:
        while start < size:
            where = f"{path}: HDU {number}"
            if number == MAX_HDUS:
                raise RawError(f"{path}: more than {MAX_HDUS} HDUs")
            stream.seek(start)
            sizes, length = _read_header(stream, where)
            pixels += _pixels(sizes, where)
            if pixels > MAX_PIXELS:
                raise RawError(f"{where}: the images are larger than those of any detector ({pixels} pixels)")
            start += length + _data_size(sizes, where)
            number += 1
            if first_only:
                return


def _read_header(stream: BinaryIO, where: str) -> tuple[dict[str, int], int]:
    """Return the sizes that a header tells, and its length [bytes]."""
    sizes: dict[str, int] = {}
    length = 0
    while length < MAX_HEADER:
        block = stream.read(_BLOCK)
        length += _BLOCK
        if len(block) < _BLOCK:
            raise RawError(f"{where}: not a readable FITS file: truncated or damaged within a header")
        for offset in range(0, _BLOCK, _CARD):
            card = block[offset : offset + _CARD]
            if card[:4].rstrip().upper() == b"END":
                if card[3:].strip():
                    raise RawError(f"{where}: a card END that is none")
                return sizes, length
            _take_in(card, sizes, where)
    raise RawError(f"{where}: a header without an end")


def _take_in(card: bytes, sizes: dict[str, int], where: str) -> None:
    # Names in small letters, and long ones, are the same names to the reader.
    found = _NUMBER.match(card.upper().removeprefix(b"HIERARCH ").lstrip())
    if found is None:
        return
    name, value = found[1], found[2].strip()
    if name == b"ZCMPTYPE" or name.startswith(b"TTYPE"):
        if b"&" in value or any(kind in value for kind in _INFLATES):
            raise RawError(f"{where}: {value.decode(errors='replace')}: tiles of unknown size are not read")
        return
    if name == b"GROUPS" and value != b"F":
        raise RawError(f"{where}: groups of images, whose sizes mean something else, are not read")
    if _SIZES.fullmatch(name) is None:
        return
    try:
        number = int(value)
    except ValueError:
        number = -1
    key = name.decode()
    # The number of bits is negative for floating-point pixels.
    if (number < 0 and key != "BITPIX") or abs(number) >= 1 << 40 or key in sizes:
        raise RawError(f"{where}: {key} is {value[:20].decode(errors='replace')}, or is there twice")
    if number not in _ALLOWED.get(key, (number,)):
        raise RawError(f"{where}: {key} is {number}")
    sizes[key] = number


def _pixels(sizes: dict[str, int], where: str) -> int:
    """Return how many pixels an image has when it is read; a table has none."""
    prefix = "ZNAXIS" if "ZNAXIS" in sizes else "NAXIS"
    if "TFIELDS" in sizes and prefix == "NAXIS":
        return 0
    if sizes.get("TFIELDS", 0) > MAX_COLUMNS:
        raise RawError(f"{where}: {sizes['TFIELDS']} columns")
    axes = _axes(sizes, prefix, where)
    return axes[0] * axes[1] if axes else 0


def _data_size(sizes: dict[str, int], where: str) -> int:
    """Return the length of the data behind a header, in whole blocks [bytes]."""
    axes = _axes(sizes, "NAXIS", where)
    if not axes:
        return 0
    values = axes[0] * axes[1] + sizes.get("PCOUNT", 0)
    length = abs(sizes.get("BITPIX", 0)) // 8 * max(sizes.get("GCOUNT", 1), 1) * values
    return -(-length // _BLOCK) * _BLOCK


def _axes(sizes: dict[str, int], prefix: str, where: str) -> tuple[int, int] | None:
    """Return the lengths of the two axes, `None` if there is no axis."""
    number = sizes.get(prefix, 0)
    if number == 0:
        return None
    if number != 2 or not {f"{prefix}1", f"{prefix}2"} <= sizes.keys():
        raise RawError(f"{where}: {prefix} is {number}, or an axis is missing: not a two-dimensional image")
    return sizes[f"{prefix}1"], sizes[f"{prefix}2"]
