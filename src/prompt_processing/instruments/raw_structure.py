"""What a raw may be made of, looked at before anything is made of it.

A file of a few kB can promise gigabytes, or billions of axes, which the reader of FITS would try to have.
This reads the cards that say how large things are, and nothing else. FITS 4.0, sections 4.4 and 10.

What two readers could understand in two ways is refused: sizes in small letters, in long names, on several
cards or twice, and ends of a header that are none.
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
_END: Final = b"END".ljust(_CARD)
_NAME: Final = re.compile(rb"[A-Z0-9_-]* *")
_NUMBER: Final = re.compile(rb"[+-]?[0-9]{1,18}")
_SIZES: Final = re.compile(rb"Z?NAXIS[0-9]*|Z?BITPIX|Z?PCOUNT|Z?GCOUNT|TFIELDS|ZTILE[0-9]+|THEAP")
_KINDS: Final = re.compile(rb"SIMPLE|XTENSION|GROUPS|ZIMAGE|ZCMPTYPE|TTYPE[0-9]+")
_BITS: Final = frozenset({8, 16, 32, 64, -32, -64})
_FIRST: Final = frozenset({("SIMPLE", "T")})
_OTHERS: Final = frozenset({("XTENSION", kind) for kind in ("'IMAGE'", "'BINTABLE'", "'TABLE'")})
_COMPRESSION: Final = "'RICE_1'"
"""The only kind of tiles that cannot become larger than their image: those of others say it by themselves."""
_COLUMNS: Final = frozenset({"'COMPRESSED_DATA'", "'ZSCALE'", "'ZZERO'", "'ZBLANK'"})


def check_structure(path: Path, *, only_first: bool = False) -> list[tuple[int, int]]:
    """Refuse a file that would be large, or endless, when it is read.

    Parameters
    ----------
    path
        The file.
    only_first
        Whether only the first header is read.

    Returns
    -------
    places
        Where each HDU begins, and where its data end [bytes].

    Raises
    ------
    RawError
        If it is not made as a raw is; the message names the file, the HDU and the reason.
    """
    size = path.stat().st_size
    pixels = start = 0
    places: list[tuple[int, int]] = []
    with path.open("rb") as stream:
        while start < size:
            where = f"{path}: HDU {len(places)}"
            if len(places) == MAX_HDUS:
                raise RawError(f"{path}: more than {MAX_HDUS} HDUs")
            stream.seek(start)
            header = _read_header(stream, where, first=not places)
            pixels += header.pixels()
            if pixels > MAX_PIXELS:
                raise RawError(f"{where}: the images are larger than those of any detector ({pixels} pixels)")
            end = start + header.length + header.data_size()
            places.append((start, end))
            start = end
            if only_first:
                break
    return places


class _Header:
    """What one header says of sizes.

    Parameters
    ----------
    where
        File and HDU, for errors.
    """

    def __init__(self, where: str) -> None:
        self.length = 0
        self._where = where
        self._sizes: dict[str, int] = {}
        self._kinds: dict[str, str] = {}

    def take_in(self, card: bytes) -> None:
        """Take in one card."""
        name = card[:8].rstrip()
        if name == b"HIERARCH":
            name = card[8:].partition(b"=")[0].strip().upper()
            if _SIZES.fullmatch(name) or _KINDS.fullmatch(name):
                raise self.error(f"{_shown(name)} has a long name")
            return
        if _NAME.fullmatch(card[:8]) is None or name == b"END":
            raise self.error(f"{_shown(card)} is no card")
        if not _SIZES.fullmatch(name) and not _KINDS.fullmatch(name):
            return
        key, value = name.decode(), card[10:].partition(b"/")[0].strip()
        if card[8:10] != b"= " or key in self._sizes or key in self._kinds:
            raise self.error(f"{key} has no value, or is there twice")
        if _KINDS.fullmatch(name):
            text = _shown(value)
            self._kinds[key] = f"'{text[1:-1].rstrip()}'" if text[:1] == "'" else text
            return
        number = int(value) if _NUMBER.fullmatch(value) else None
        # The number of bits is negative for floating-point pixels.
        if number is None or abs(number) >= 1 << 40 or (number < 0 and key not in {"BITPIX", "ZBITPIX"}):
            raise self.error(f"{key} is {_shown(value)}")
        self._sizes[key] = number

    def check(self, *, first: bool) -> None:
        """Refuse a header of what is not in a raw."""
        if next(iter(self._kinds.items()), None) not in (_FIRST if first else _OTHERS):
            raise self.error("it does not begin as the HDU of a raw does")
        if "GROUPS" in self._kinds:
            raise self.error("groups are not read")
        if self._kinds.get("ZIMAGE", "F") == "F":
            return
        columns = {text for key, text in self._kinds.items() if key.startswith("TTYPE")}
        if self._sizes.get("TFIELDS", 0) > MAX_COLUMNS or not columns <= _COLUMNS:
            raise self.error("it has other columns than a compressed image")
        if self._kinds.get("ZCMPTYPE") != _COMPRESSION:
            raise self.error(f"tiles of the kind {self._kinds.get('ZCMPTYPE')} are not read")

    def pixels(self) -> int:
        """Return how many pixels an image has when it is read; a table has none."""
        if self._kinds.get("ZIMAGE", "F") != "F":
            axes = self._axes("ZNAXIS")
        else:
            axes = None if "TFIELDS" in self._sizes else self._axes("NAXIS")
        return axes[0] * axes[1] if axes else 0

    def data_size(self) -> int:
        """Return the length of the data behind the header, in whole blocks [bytes]."""
        axes = self._axes("NAXIS")
        if not axes:
            return 0
        bits = self._sizes.get("BITPIX")
        if bits not in _BITS:
            raise self.error(f"BITPIX is {bits}")
        values = axes[0] * axes[1] + self._sizes.get("PCOUNT", 0)
        length = abs(bits) // 8 * self._sizes.get("GCOUNT", 1) * values
        return -(-length // _BLOCK) * _BLOCK

    def _axes(self, prefix: str) -> tuple[int, int] | None:
        """Return the lengths of the two axes, `None` if there is no axis."""
        number = self._sizes.get(prefix)
        if number == 0:
            return None
        if number != 2 or not {f"{prefix}1", f"{prefix}2"} <= self._sizes.keys():
            raise self.error(f"{prefix} is {number}, or an axis is missing: not a two-dimensional image")
        return self._sizes[f"{prefix}1"], self._sizes[f"{prefix}2"]

    def error(self, text: str) -> RawError:
        """Return an error that says where it is."""
        return RawError(f"{self._where}: not a readable FITS file, or damaged: {text}")


def _read_header(stream: BinaryIO, where: str, *, first: bool) -> _Header:
    header = _Header(where)
    while header.length < MAX_HEADER:
        block = stream.read(_BLOCK)
        header.length += _BLOCK
        if len(block) < _BLOCK:
            raise header.error("it is truncated within a header")
        for offset in range(0, _BLOCK, _CARD):
            card = block[offset : offset + _CARD]
            if card == _END:
                header.check(first=first)
                return header
            header.take_in(card)
    raise header.error("a header without an end")


def _shown(value: bytes) -> str:
    return value[:40].decode("ascii", errors="replace").strip()
