"""Cosmic rays: L.A.Cosmic (van Dokkum 2001, PASP 113, 1420), one iteration.

Only pixels whose Laplacian stands out can become cosmic rays, and they are few. The medians that make the
method slow are therefore taken at those pixels alone; the decisions are the same as when whole images are
filtered.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.interpolation import fill_pixels
from prompt_processing.images.masks import UNUSABLE, MaskPlane

SIGNIFICANCE = 4.5
"""Laplacian significance of a cosmic ray (van Dokkum's sigma_lim)."""
NEIGHBOUR_SIGNIFICANCE = 0.3 * SIGNIFICANCE
"""The same for pixels that touch one."""
CONTRAST = 5.0
"""Least ratio of the Laplacian to the fine structure (f_lim): stars, even of FWHM 2 pixels, stay below 1."""
_MARGIN = 5
"""Pixels along the border that are not examined: the windows do not fit."""


@numba.njit(cache=True, nogil=True)
def _laplacian(image: NDArray[np.float32], masked: NDArray[np.bool_], y: int, x: int) -> float:
    """Return the mean positive Laplacian of the four quarters of a pixel (equations 7 to 9).

    Replicating each pixel 2 x 2 leaves a quarter with two outer neighbours. A masked neighbour counts as
    equal to the pixel.
    """
    centre = image[y, x]
    left = 0.0 if masked[y, x - 1] else centre - image[y, x - 1]
    right = 0.0 if masked[y, x + 1] else centre - image[y, x + 1]
    below = 0.0 if masked[y - 1, x] else centre - image[y - 1, x]
    above = 0.0 if masked[y + 1, x] else centre - image[y + 1, x]
    return 0.25 * (
        max(0.0, left + below) + max(0.0, left + above) + max(0.0, right + below) + max(0.0, right + above)
    )


@numba.njit(cache=True, nogil=True)
def _median(image: NDArray[np.float32], y: int, x: int, radius: int, work: NDArray[np.float32]) -> float:
    n = 0
    for yy in range(y - radius, y + radius + 1):
        for xx in range(x - radius, x + radius + 1):
            work[n] = image[yy, xx]
            n += 1
    return float(np.median(work[:n]))


@numba.njit(cache=True, nogil=True)
def _noise(variance: NDArray[np.float32], y: int, x: int, work: NDArray[np.float32]) -> float:
    """Return the noise of the scene: the median keeps a hit out of its own noise."""
    return np.sqrt(max(_median(variance, y, x, 2, work), 1e-30))


@numba.njit(cache=True, nogil=True)
def _significance(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    masked: NDArray[np.bool_],
    y: int,
    x: int,
    work: NDArray[np.float32],
) -> float:
    """Return the Laplacian in units of the noise, without its smooth part (equations 10 to 13)."""
    noise = _noise(variance, y, x, work)
    n = 0
    for yy in range(y - 2, y + 3):
        for xx in range(x - 2, x + 3):
            work[n] = _laplacian(image, masked, yy, xx)
            n += 1
    return (_laplacian(image, masked, y, x) - np.median(work[:n])) / (2 * noise)


@numba.njit(cache=True, nogil=True)
def _fine_structure(image: NDArray[np.float32], y: int, x: int, work: NDArray[np.float32]) -> float:
    """Return the small-scale symmetric structure: 3 x 3 median less its own 7 x 7 median (equation 14)."""
    smooth = np.empty(49, dtype=np.float32)
    n = 0
    for yy in range(y - 3, y + 4):
        for xx in range(x - 3, x + 4):
            smooth[n] = _median(image, yy, xx, 1, work)
            n += 1
    return smooth[24] - np.median(smooth)


@numba.njit(cache=True, nogil=True)
def _find(
    image: NDArray[np.float32], variance: NDArray[np.float32], masked: NDArray[np.bool_], floor: float
) -> NDArray[np.bool_]:
    """Return the cosmic rays of an image whose noise is nowhere below ``floor``."""
    ny, nx = image.shape
    hits = np.zeros((ny, nx), dtype=np.bool_)
    work = np.empty(49, dtype=np.float32)
    for y in range(_MARGIN, ny - _MARGIN):
        for x in range(_MARGIN, nx - _MARGIN):
            if masked[y, x] or _laplacian(image, masked, y, x) < 2 * SIGNIFICANCE * floor:
                continue
            significance = _significance(image, variance, masked, y, x, work)
            if significance <= SIGNIFICANCE:
                continue
            structure = max(_fine_structure(image, y, x, work) / _noise(variance, y, x, work), 0.01)
            hits[y, x] = significance > CONTRAST * structure
    # Grow twice: by pixels as significant as the seeds, then by fainter ones.
    for threshold in (SIGNIFICANCE, NEIGHBOUR_SIGNIFICANCE):
        rows, columns = np.nonzero(hits)
        for k in range(rows.size):
            for yy in range(max(_MARGIN, rows[k] - 1), min(ny - _MARGIN, rows[k] + 2)):
                for xx in range(max(_MARGIN, columns[k] - 1), min(nx - _MARGIN, columns[k] + 2)):
                    if not masked[yy, xx] and not hits[yy, xx]:
                        hits[yy, xx] = _significance(image, variance, masked, yy, xx, work) > threshold
    return hits


def mask_cosmic_rays(masked: MaskedImage) -> int:
    """Find cosmic rays and replace them by the median of their surroundings, in place.

    Parameters
    ----------
    masked
        The image, with or without sky; hits become ``CR`` and ``INTRP``. Pixels that are already unusable are
        left alone.

    Returns
    -------
    n_pixels
        Number of pixels that were marked ``CR``.

    Notes
    -----
    The defaults are those of van Dokkum's paper and of astroscrappy (sigclip 4.5, sigfrac 0.3, objlim 5),
    with the noise from the variance plane. One iteration finds all but a few pixels at the edges of long
    tracks.
    """
    unusable = (masked.mask & np.uint16(UNUSABLE & ~MaskPlane.EDGE)) != 0
    sample = masked.variance[::8, ::8][~unusable[::8, ::8]]
    if sample.size == 0:
        return 0
    # Half of the lowest tenth: no pixel that matters has less noise, so nothing is lost by testing with it.
    floor = 0.5 * float(np.sqrt(np.percentile(sample, 10)))
    hits = _find(masked.image, masked.variance, unusable, floor)
    fill_pixels(masked, hits, ~(unusable | hits))
    masked.mask[hits] |= np.uint16(MaskPlane.CR)
    return int(hits.sum())
