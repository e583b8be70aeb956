"""Which sources are stars that a PSF can be measured from."""

import numpy as np
import sep
from astropy.table import Table
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from prompt_processing.domain.errors import PsfError
from prompt_processing.images.detection import FWHM_PER_SIGMA, half_sample_mode
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE, MaskPlane
from prompt_processing.images.psf import polynomial_terms

MIN_STARS = 5
"""Fewest stars that make a PSF."""
MAX_STARS = 200
"""More stars cost time and add nothing."""
_NEAREST_GAP = 1.5
"""Stars with another source nearer than this [FWHM] are left out, unless it is faint."""


def select_stars(masked: MaskedImage, sources: Table, *, fwhm: float) -> NDArray[np.int64]:
    """Choose the stars that the PSF is measured from.

    Stars have one size at a given place: the ratio of the fluxes in a small and a large circle is followed
    over the image by a plane, and what deviates is a galaxy, a blend or a defect.

    Parameters
    ----------
    masked
        Sky-subtracted image.
    sources
        Table of `detect_sources`.
    fwhm
        FWHM of the stars [pixel].

    Returns
    -------
    stars
        Rows of ``sources``, brightest first, at most `MAX_STARS`.

    Raises
    ------
    PsfError
        If fewer than `MIN_STARS` remain.
    """
    x, y = np.asarray(sources["x"]), np.asarray(sources["y"])
    ny, nx = masked.shape
    bad_bits = int(UNUSABLE | MaskPlane.SUSPECT)
    clean = (np.asarray(sources["flags"]) & bad_bits) == 0
    clean &= (x > fwhm) & (x < nx - 1 - fwhm) & (y > fwhm) & (y < ny - 1 - fwhm)
    clean &= ~_has_near_neighbour(x, y, np.asarray(sources["flux"]), _NEAREST_GAP * fwhm)
    snr = np.asarray(sources["snr"])
    for least in (50.0, 20.0):
        candidates = np.nonzero(clean & (snr >= least))[0]
        if candidates.size >= 10 * MIN_STARS:
            break
    if candidates.size < MIN_STARS:
        raise PsfError(
            f"{candidates.size} of {len(sources)} sources are bright, unsaturated and alone: "
            f"{MIN_STARS} are needed"
        )
    size = _concentration(masked, x[candidates], y[candidates], fwhm)
    stars = candidates[_follow_size(size, x[candidates], y[candidates], snr[candidates], masked.shape)]
    if stars.size < MIN_STARS:
        raise PsfError(f"{stars.size} of {candidates.size} bright sources have the size of a star")
    return stars[:MAX_STARS]


def _has_near_neighbour(
    x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64], gap: float
) -> NDArray[np.bool_]:
    """Tell which sources have another of at least a twentieth of their flux within the gap."""
    near = np.zeros(x.size, dtype=bool)
    pairs = cKDTree(np.stack([x, y], axis=1)).query_pairs(gap, output_type="ndarray")
    for one, other in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
        near[one[flux[other] > 0.05 * flux[one]]] = True
    return near


def _concentration(
    masked: MaskedImage, x: NDArray[np.float64], y: NDArray[np.float64], fwhm: float
) -> NDArray[np.float64]:
    """Return the magnitude of a small less that of a large circle about the centres; NaN if masked."""
    image = np.ascontiguousarray(masked.image)
    unusable = (masked.mask & np.uint16(UNUSABLE)) != 0
    xw, yw, _ = sep.winpos(image, x, y, fwhm / FWHM_PER_SIGMA, mask=unusable)
    inner, _, _ = sep.sum_circle(image, xw, yw, 0.5 * fwhm, mask=unusable)
    outer, _, flag = sep.sum_circle(image, xw, yw, 1.2 * fwhm, mask=unusable)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = -2.5 * np.log10(inner / outer)
    return np.asarray(np.where((flag == 0) & np.isfinite(size), size, np.nan))


def _follow_size(
    size: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    snr: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Return which sources lie on the plane of the stellar size."""
    kept = np.isfinite(size)
    if np.count_nonzero(kept) < MIN_STARS:
        return kept
    # A plane needs stars all over the image; a few only give a level.
    mode = half_sample_mode(np.sort(size[kept]))
    order = 2 if np.count_nonzero(kept) > 60 else 1 if np.count_nonzero(kept) > 12 else 0
    terms = polynomial_terms(x, y, shape, order).T
    noise = 1.5 / snr
    expected = np.full(size.size, mode)
    tolerance = 0.12
    for _ in range(8):
        kept = np.abs(size - expected) < np.hypot(tolerance, 3 * noise)
        if np.count_nonzero(kept) < max(MIN_STARS, 2 * terms.shape[1]):
            break
        solution, *_ = np.linalg.lstsq(terms[kept] / noise[kept, None], size[kept] / noise[kept], rcond=None)
        expected = terms @ solution
        scatter = 1.4826 * float(np.median(np.abs(size[kept] - expected[kept])))
        tolerance = float(np.clip(3 * scatter, 0.015, 0.12))
    return np.asarray(np.abs(size - expected) < np.hypot(tolerance, 3 * noise)) & np.isfinite(size)
