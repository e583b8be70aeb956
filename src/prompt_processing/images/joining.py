"""Patches of a template joined on the pixel grid of their tract, without any resampling."""

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MASK_DTYPE, MaskPlane
from prompt_processing.images.warp import REACH

MARGIN: Final = REACH + 3
"""Pixels kept around a field, so that the interpolation at its edge has neighbours."""


class TractGrid:
    """A rectangle of a tract's pixels that is filled patch by patch.

    Parameters
    ----------
    wcs
        WCS of any patch of the tract; the others may differ from it by whole pixels only.
    ra, dec
        Corners of the field that is needed, ICRS [deg].
    """

    def __init__(self, wcs: WCS, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> None:
        x, y = wcs.wcs_world2pix(ra, dec, 0)
        self._x0, self._y0 = (math.floor(values.min()) - MARGIN for values in (x, y))
        nx, ny = (
            math.ceil(values.max()) + MARGIN + 1 - start for values, start in ((x, self._x0), (y, self._y0))
        )
        self._patch_wcs = wcs
        self.wcs = shifted(wcs, self._x0, self._y0)
        self.pixels = MaskedImage(
            np.zeros((ny, nx), np.float32),
            np.zeros((ny, nx), np.float32),
            np.full((ny, nx), MaskPlane.NO_DATA, MASK_DTYPE),
        )

    def paste(self, patch: MaskedImage, wcs: WCS) -> None:
        """Fill what has no data yet with a patch.

        Parameters
        ----------
        patch
            Pixels of the patch, in surface brightness.
        wcs
            Its WCS.

        Raises
        ------
        RepositoryError
            If the patch is not on the pixel grid of the tract.
        """
        left, top = self._offset(wcs)
        ny, nx = self.pixels.shape
        patch_ny, patch_nx = patch.shape
        x0, x1 = max(left, 0), min(left + patch_nx, nx)
        y0, y1 = max(top, 0), min(top + patch_ny, ny)
        if x0 >= x1 or y0 >= y1:
            return
        ours = (slice(y0, y1), slice(x0, x1))
        theirs = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        mask = self.pixels.mask[ours]
        empty = (mask & MaskPlane.NO_DATA) != 0
        for mine, other in (
            (self.pixels.image, patch.image),
            (self.pixels.variance, patch.variance),
            (self.pixels.mask, patch.mask),
        ):
            np.copyto(mine[ours], other[theirs], where=empty)

    def _offset(self, wcs: WCS) -> tuple[int, int]:
        """Return the place of a patch's first pixel."""
        same_plane = np.array_equal(wcs.wcs.crval, self._patch_wcs.wcs.crval) and np.array_equal(
            wcs.wcs.cd, self._patch_wcs.wcs.cd
        )
        shift = self._patch_wcs.wcs.crpix - wcs.wcs.crpix
        whole = np.rint(shift)
        if not same_plane or np.abs(shift - whole).max() > 1e-6:
            raise RepositoryError(f"a template patch is off the grid of its tract by {shift - whole} pixels")
        return int(whole[0]) - self._x0, int(whole[1]) - self._y0


def shifted(wcs: WCS, x0: int, y0: int) -> WCS:
    """Return the WCS of a part of an image.

    Parameters
    ----------
    wcs
        WCS of the image.
    x0, y0
        0-based pixel of the image that is the first of the part.

    Returns
    -------
    wcs
        A changed copy.
    """
    result = wcs.deepcopy()
    result.wcs.crpix = wcs.wcs.crpix - (x0, y0)
    result.wcs.set()
    return result


def to_arrays(grids: dict[int, TractGrid], patches: Iterable[tuple[int, int]]) -> dict[str, Any]:
    """Return the joined tracts as arrays, for the dataset ``template_joined``.

    Parameters
    ----------
    grids
        Joined pixels and WCS by number of the tract.
    patches
        Tract and patch number of each patch in the joined pixels.

    Returns
    -------
    arrays
        ``tracts``, ``patches`` with shape ``(n, 2)``, and the planes and the WCS of each tract.
    """
    arrays: dict[str, Any] = {
        "tracts": np.array(sorted(grids), np.int64),
        "patches": np.array(list(patches), np.int64).reshape(-1, 2),
    }
    for tract in sorted(grids):
        pixels, wcs = grids[tract].pixels, grids[tract].wcs.wcs
        arrays |= {
            f"image_{tract}": pixels.image,
            f"variance_{tract}": pixels.variance,
            f"mask_{tract}": pixels.mask,
            f"crval_{tract}": np.array(wcs.crval),
            f"crpix_{tract}": np.array(wcs.crpix),
            f"cd_{tract}": np.array(wcs.cd),
        }
    return arrays


def from_arrays(arrays: dict[str, Any]) -> list[tuple[MaskedImage, WCS]]:
    """Return the images of the tracts with their WCS.

    Parameters
    ----------
    arrays
        Arrays of `to_arrays`.

    Returns
    -------
    images
        In order of the tracts; the pixels are shared with the arrays.
    """
    images = []
    for tract in arrays["tracts"]:
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = (
            arrays[f"{name}_{tract}"] for name in ("crval", "crpix", "cd")
        )
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        planes = (arrays[f"{name}_{tract}"] for name in ("image", "variance", "mask"))
        images.append((MaskedImage(*planes), wcs))
    return images
