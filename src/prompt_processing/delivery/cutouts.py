"""Small images around sources, as FITS in the layout of astropy's ``CCDData``.

Primary HDU: pixels [nJy] with a local, linear 2-D WCS and ``ROTPA``; ``MASK``: bits, named by ``MP_<PLANE>``
cards; ``UNCERT``: variance [nJy2]; ``PSFIMAGE``: the PSF at the source, of sum 1. ``CCDData.read`` reads it.
"""

from functools import lru_cache
from typing import Any, Final

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.masks import MaskPlane

SMALLEST: Final = 30
"""Side of most cutouts [pixel]."""
LARGEST: Final = 102
"""Largest side [pixel]: the trail of an object that moves 10 deg a day, and the PSF."""

_BLOCK: Final = 2880
_UNIT: Final = "nJy"


def cutout_sizes(bbox_sizes: ArrayLike) -> NDArray[np.int64]:
    """Return the sides of the cutouts of sources [pixel], from the sides of their footprints [pixel]."""
    return np.clip(np.asarray(bbox_sizes, dtype=np.int64), SMALLEST, LARGEST)


def make_cutouts(exposure: Exposure, x: ArrayLike, y: ArrayLike, sizes: ArrayLike) -> list[bytes]:
    """Cut squares out of an image.

    Pixels outside the image are NaN in image and variance, and ``NO_DATA`` in the mask.

    Parameters
    ----------
    exposure
        Image in nJy with a WCS; without a PSF the cutouts have no ``PSFIMAGE``.
    x, y
        Positions of the sources, shape ``(n,)`` [pixel]; the pixel that holds the position is that at
        index ``size // 2`` in both directions.
    sizes
        Sides of the squares, shape ``(n,)`` [pixel].

    Returns
    -------
    cutouts
        One FITS file for each source.

    Raises
    ------
    ValueError
        If the image is not in nJy or has no WCS.
    """
    if exposure.unit != _UNIT or exposure.wcs is None:
        raise ValueError(f"cutouts need an image in {_UNIT} with a WCS, not one in {exposure.unit}")
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    sizes = np.asarray(sizes, dtype=np.int64)
    # An empty call to the WCS is an error.
    projections = _local_projections(exposure.wcs, x, y) if len(x) else np.empty((0, 6))
    rotation = exposure.info.get("rotation")
    cutouts = []
    for source_x, source_y, size, projection in zip(x, y, sizes.tolist(), projections, strict=True):
        corner = _corner(source_x, size), _corner(source_y, size)
        cards = _wcs_cards(projection, source_x - corner[0] + 1, source_y - corner[1] + 1)
        cards += f"{'CUTMINX':<8}= {corner[0]:20d}".ljust(80) + f"{'CUTMINY':<8}= {corner[1]:20d}".ljust(80)
        if rotation is not None:
            cards += _real_card("ROTPA", rotation)
        planes = _cut(exposure.masked_image, *corner, size)
        parts = [
            _hdu("PRIMARY", planes.image, ">f4", cards),
            _hdu("MASK", planes.mask, ">i2"),
            _hdu("UNCERT", planes.variance, ">f4"),
        ]
        if exposure.psf is not None:
            parts.append(_hdu("PSFIMAGE", exposure.psf.at(source_x, source_y), ">f4"))
        cutouts.append(b"".join(parts))
    return cutouts


def _corner(position: float, size: int) -> int:
    """Return the index of the first pixel of a square around a position."""
    return int(np.floor(position + 0.5)) - size // 2


def _local_projections(wcs: WCS, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return ra, dec [deg] and CD1_1, CD1_2, CD2_1, CD2_2 [deg/pixel] at positions, shape (n, 6)."""
    ra, dec = wcs.all_pix2world(x, y, 0)
    columns = [ra, dec]
    matrix = {}
    for axis, (step_x, step_y) in enumerate(((0.5, 0.0), (0.0, 0.5))):
        ra_after, dec_after = wcs.all_pix2world(x + step_x, y + step_y, 0)
        ra_before, dec_before = wcs.all_pix2world(x - step_x, y - step_y, 0)
        along_ra = (ra_after - ra_before + 180.0) % 360.0 - 180.0
        matrix[0, axis] = along_ra * np.cos(np.radians(dec))
        matrix[1, axis] = dec_after - dec_before
    columns += [matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]]
    return np.stack(columns, axis=1)


def _cut(planes: MaskedImage, x0: int, y0: int, size: int) -> MaskedImage:
    ny, nx = planes.shape
    cut = MaskedImage(
        np.full((size, size), np.nan, dtype=np.float32),
        np.full((size, size), np.nan, dtype=np.float32),
        np.full((size, size), MaskPlane.NO_DATA, dtype=np.uint16),
    )
    left, right = max(x0, 0), min(x0 + size, nx)
    low, high = max(y0, 0), min(y0 + size, ny)
    if left < right and low < high:
        target = slice(low - y0, high - y0), slice(left - x0, right - x0)
        cut.image[target] = planes.image[low:high, left:right]
        cut.variance[target] = planes.variance[low:high, left:right]
        cut.mask[target] = planes.mask[low:high, left:right]
    return cut


def _hdu(name: str, data: NDArray[Any], dtype: str, cards: str = "") -> bytes:
    """Return one HDU.

    astropy needs 1 ms for each, and an alert has twelve; so its header is made once for each kind and shape,
    and only the cards that differ are written here.
    """
    header = (_constant_cards(name, data.shape, dtype) + cards + "END").encode("ascii")
    pixels = data.astype(dtype).tobytes()
    return header + b" " * (-len(header) % _BLOCK) + pixels + b"\0" * (-len(pixels) % _BLOCK)


@lru_cache(maxsize=512)
def _constant_cards(name: str, shape: tuple[int, ...], dtype: str) -> str:
    """Return the cards that all HDUs of a kind and shape share."""
    pixels = np.zeros(shape, dtype=dtype)
    hdu = fits.PrimaryHDU(pixels) if name == "PRIMARY" else fits.ImageHDU(pixels, name=name)
    header = hdu.header
    if name == "PRIMARY":
        header["BUNIT"] = _UNIT
        header.extend(
            [
                ("WCSAXES", 2),
                ("CTYPE1", "RA---TAN"),
                ("CTYPE2", "DEC--TAN"),
                ("CUNIT1", "deg"),
                ("CUNIT2", "deg"),
                ("RADESYS", "ICRS"),
            ]
        )
    elif name == "UNCERT":
        header["BUNIT"] = f"{_UNIT}2"
        header["UTYPE"] = "VarianceUncertainty"
    elif name == "MASK":
        for plane in MaskPlane:
            header[f"HIERARCH MP_{plane.name}"] = plane.value.bit_length() - 1
    text: str = header.tostring(sep="", endcard=False, padding=False)
    return text


def _wcs_cards(projection: NDArray[Any], x: float, y: float) -> str:
    names = ("CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2", "CRPIX1", "CRPIX2")
    values = (*projection.tolist(), x, y)
    return "".join(_real_card(name, value) for name, value in zip(names, values, strict=True))


def _real_card(name: str, value: float) -> str:
    return f"{name:<8}= {value:20.13E}".ljust(80)
