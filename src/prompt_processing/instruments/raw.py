"""Reading a raw: one FITS file of one detector, an image HDU for each amplifier.

The geometry comes from the file alone: ``DETSEC`` says where an amplifier's pixels belong on the detector and
in which direction they run, ``DATASEC`` where they are in the amplifier's image, ``DETSIZE`` how large the
detector is, and what is right of ``DATASEC`` is the serial overscan. See ``docs/reference/latiss.md``.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from prompt_processing.domain.errors import HeaderError, PromptError, RawError
from prompt_processing.images.amplifier import Amplifier, detector_shape
from prompt_processing.instruments.raw_structure import check_structure

LONGEST = 900
"""Longest message about a damaged file [characters]."""
_SECTION = re.compile(r"\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]", re.ASCII)


@dataclass(slots=True)
class RawExposure:
    """A raw as it came from the camera."""

    amplifiers: list[Amplifier]
    """Amplifiers in the order of their names; together they cover the detector exactly once."""
    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the detector, from ``DETSIZE``."""
    header: fits.Header
    """Header of the observation: the primary header, with ``DETSIZE`` of the amplifiers."""
    path: str
    """File it was read from, for messages."""


@dataclass(frozen=True, slots=True)
class _Section:
    """A FITS section: 0-based slices, and whether its pixels run backwards."""

    y: slice
    x: slice
    flip_y: bool
    flip_x: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.y.stop - self.y.start, self.x.stop - self.x.start


def read_raw(path: str | Path) -> RawExposure:
    """Read a raw, plain (``.fits``) or tile-compressed (``.fits.fz``).

    Parameters
    ----------
    path
        Local file.

    Returns
    -------
    raw
        Pixels of integer files stay integers, those of floating-point files stay floats; native byte order.

    Raises
    ------
    RawError
        If the file is absent, empty, truncated, not FITS, or its amplifiers do not cover the detector exactly
        once; the message names the file, the HDU and the reason.
    HeaderError
        If a geometry card of an amplifier is missing or makes no sense.
    """
    path = Path(path)
    try:
        return _read(path)
    except PromptError:
        raise
    except Exception as error:  # astropy lets errors of every kind out of a damaged file
        raise RawError(f"{path}: not a readable FITS file ({error!r})"[:LONGEST]) from error


def _read(path: Path) -> RawExposure:
    with warnings.catch_warnings():
        # What astropy only warns of (truncation, garbage after the last HDU) is refused below, with a reason.
        warnings.simplefilter("ignore", AstropyWarning)
        places = _structure(path)
        with _open(path) as hdus:
            _check_places(path, hdus, places)
            header = hdus[0].header.copy()
            found = [hdu for hdu in hdus if hdu.is_image and "DETSEC" in hdu.header]
            sizes = {_section(f"{path}: HDU {hdu.name}", hdu.header, "DETSIZE") for hdu in found}
            amplifiers = [_read_amplifier(path, hdu) for hdu in found]
    amplifiers.sort(key=lambda amplifier: amplifier.name)
    shape = _check_cover(path, amplifiers, sizes)
    header["DETSIZE"] = (f"[1:{shape[1]},1:{shape[0]}]", "size of the detector")
    return RawExposure(amplifiers, shape, header, str(path))


def read_raw_header(path: str | Path) -> fits.Header:
    """Read the primary header of a raw, without its pixels.

    Raises
    ------
    RawError
        If the file is absent, empty, truncated within the header, or not FITS.
    """
    path = Path(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        _structure(path, only_first=True)
        with _open(path) as hdus:
            header: fits.Header = hdus[0].header.copy()
    return header


def _structure(path: Path, *, only_first: bool = False) -> list[tuple[int, int]]:
    """Return where the HDUs of a file are, or say what it is instead."""
    try:
        if path.stat().st_size == 0:
            raise RawError(f"{path}: the file is empty")
        with path.open("rb") as stream:
            if stream.read(6) != b"SIMPLE":  # astropy would also inflate what is packed
                raise RawError(f"{path}: not a readable FITS file (it does not begin with SIMPLE)")
        return check_structure(path, only_first=only_first)
    except FileNotFoundError as error:
        raise RawError(f"{path}: there is no such file") from error
    except OSError as error:
        raise RawError(f"{path}: cannot be read ({error})") from error


def _open(path: Path) -> fits.HDUList:
    try:
        return fits.open(path, memmap=False, lazy_load_hdus=True)
    except (OSError, ValueError, TypeError, IndexError, fits.VerifyError) as error:
        raise RawError(f"{path}: not a readable FITS file ({error})") from error


def _check_places(path: Path, hdus: fits.HDUList, places: list[tuple[int, int]]) -> None:
    """Refuse a file whose HDUs are not where `check_structure` has found them.

    HDUs are opened one after the other, so astropy follows only headers that were checked.
    """
    size = path.stat().st_size
    for index, (start, end) in enumerate(places):
        if end > size:
            raise RawError(f"{path}: truncated in HDU {index}: {size} bytes, {end} are needed")
        try:
            found = hdus[index].fileinfo()
        except IndexError as error:
            raise RawError(f"{path}: damaged: HDU {index} cannot be read") from error
        if (found["hdrLoc"], found["datLoc"] + found["datSpan"]) != (start, end):
            raise RawError(f"{path}: damaged: HDU {index} is not where it seems")


def _read_amplifier(path: Path, hdu: Any) -> Amplifier:
    # FITS compares names without regard to case, and astropy writes them in capitals.
    name = hdu.name.strip().capitalize()
    if not name:
        raise HeaderError(f"{path}: an amplifier's HDU has no EXTNAME")
    where = f"{path}: HDU {name}"
    data, detector = _section(where, hdu.header, "DATASEC"), _section(where, hdu.header, "DETSEC")
    pixels = _pixels(where, hdu)
    if data.flip_x or data.flip_y:
        raise HeaderError(f"{where}: DATASEC {hdu.header['DATASEC']} runs backwards")
    if data.y.stop > pixels.shape[0] or data.x.stop > pixels.shape[1]:
        raise HeaderError(f"{where}: DATASEC {hdu.header['DATASEC']} is larger than the image {pixels.shape}")
    if data.x.stop == pixels.shape[1]:
        raise HeaderError(f"{where}: DATASEC {hdu.header['DATASEC']} leaves no column of serial overscan")
    return Amplifier(
        name=name,
        pixels=pixels,
        data=(data.y, data.x),
        overscan=(data.y, slice(data.x.stop, pixels.shape[1])),
        detector=(detector.y, detector.x),
        flip_y=detector.flip_y,
        flip_x=detector.flip_x,
    )


def _pixels(where: str, hdu: Any) -> NDArray[Any]:
    """Return the pixels of an image HDU in native byte order, shape ``(ny, nx)``."""
    try:
        pixels = hdu.data
    except Exception as error:  # astropy lets errors of every kind out of a damaged tile
        raise RawError(f"{where}: the pixels cannot be read ({error})") from error
    if pixels is None or pixels.ndim != 2:
        raise RawError(f"{where}: not a two-dimensional image")
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def _section(where: str, header: fits.Header, card: str) -> _Section:
    """Read a section ``[x1:x2,y1:y2]``, 1-based and inclusive; backwards if x1 > x2 or y1 > y2."""
    value = header.get(card)
    match = _SECTION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise HeaderError(f"{where}: {card} is {value!r}, not a section [x1:x2,y1:y2]")
    x1, x2, y1, y2 = (int(number) for number in match.groups())
    if min(x1, x2, y1, y2) < 1:
        raise HeaderError(f"{where}: {card} {value} begins before pixel 1")
    return _Section(
        slice(min(y1, y2) - 1, max(y1, y2)), slice(min(x1, x2) - 1, max(x1, x2)), y1 > y2, x1 > x2
    )


def _check_cover(path: Path, amplifiers: list[Amplifier], sizes: set[_Section]) -> tuple[int, int]:
    """Return the detector's shape, after checking that the amplifiers cover it exactly once."""
    if not amplifiers:
        raise RawError(f"{path}: no image HDU has a DETSEC card, so there is no amplifier")
    names = [amplifier.name for amplifier in amplifiers]
    if len(set(names)) < len(names):
        raise HeaderError(f"{path}: two amplifiers have one EXTNAME ({', '.join(names)})")
    size = sizes.pop()
    if sizes or size.y.start or size.x.start or size.flip_x or size.flip_y:
        raise HeaderError(f"{path}: DETSIZE is not the same [1:nx,1:ny] in every amplifier")
    try:
        shape = detector_shape(amplifiers)
    except HeaderError as error:
        raise HeaderError(f"{path}: {error}; found are {', '.join(names)}") from error
    if shape != (size.y.stop, size.x.stop):
        raise RawError(
            f"{path}: amplifiers are missing or misplaced: {', '.join(names)} fill {shape[1]} x {shape[0]} "
            f"of {size.x.stop} x {size.y.stop} pixels (DETSIZE)"
        )
    return shape
