"""Fluxes: PSF fits, apertures, and the zero point."""

from dataclasses import dataclass

import numba
import numpy as np
import sep
from astropy.table import Table
from numpy.typing import NDArray

from prompt_processing.domain.errors import PhotometryError
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE
from prompt_processing.images.psf import PsfModel
from prompt_processing.images.psf_kernels import PADDING, add_star, evaluate_psf, fit_star

_COLUMNS = ("x", "y", "x_err", "y_err", "flux", "flux_err", "chi2", "n_pixels", "coverage")
_FIT_RADIUS = 1.5
"""Radius of the disc of a fit [FWHM]: beyond it there is no information on flux or place."""
_ITERATIONS = 4
_LATER_ITERATIONS = 2
"""Steps when the neighbours change a little and the place is nearly known."""
_PASSES = 3
_MAGNITUDE = 2.5 / np.log(10.0)


def psf_photometry(
    masked: MaskedImage, psf: PsfModel, x: NDArray[np.float64], y: NDArray[np.float64], *, free: bool
) -> Table:
    """Fit the PSF at given places.

    Stars are fitted one after the other in the given order, each on the image without the others, three times
    round, so neighbours do not add to each other's flux. Give the brightest first.

    Parameters
    ----------
    masked
        Sky-subtracted image; it is not changed. Pixels of `UNUSABLE` are left out.
    psf
        PSF of the image.
    x, y
        Places [pixel], shape ``(n,)``.
    free
        Whether the position is fitted too; otherwise fluxes are forced.

    Returns
    -------
    table
        One row per place, in the given order: ``x``, ``y``, ``x_err``, ``y_err`` [pixel], ``flux``,
        ``flux_err`` (unit of the image), ``chi2``, ``n_pixels`` (both over the disc of the fit), ``coverage``
        (0 to 1: part of the squared PSF on usable pixels). Fluxes are NaN where no pixel is usable; position
        errors are NaN where the position was not fitted or ran away by more than half a FWHM and was put
        back.
    """
    return _fit(masked, psf, x, y, free=free)[0]


def subtract_stars(
    masked: MaskedImage, psf: PsfModel, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[Table, NDArray[np.float32]]:
    """Fit stars as `psf_photometry` does with free positions, and take them out of the image.

    Parameters
    ----------
    masked, psf, x, y
        As for `psf_photometry`.

    Returns
    -------
    table
        As from `psf_photometry`.
    residual
        The image without the stars, shape ``(ny, nx)``.
    """
    return _fit(masked, psf, x, y, free=True)


def _fit(
    masked: MaskedImage, psf: PsfModel, x: NDArray[np.float64], y: NDArray[np.float64], *, free: bool
) -> tuple[Table, NDArray[np.float32]]:
    fwhm = psf.fwhm(psf.shape[1] / 2, psf.shape[0] / 2)
    half = int(min(np.ceil(_FIT_RADIUS * fwhm), psf.size // 2))
    starts = np.stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)], axis=1)
    residual = np.ascontiguousarray(masked.image).copy()
    unusable = (masked.mask & np.uint16(UNUSABLE)) != 0
    rows = _fit_all(
        residual,
        np.ascontiguousarray(masked.variance),
        unusable,
        np.ascontiguousarray(psf.coefficients),
        psf.order,
        psf.shape,
        starts,
        half,
        _ITERATIONS if free else 0,
        0.5 * fwhm,
    )
    table = Table(rows, names=_COLUMNS)
    table["n_pixels"] = table["n_pixels"].astype(np.int64)
    return table, residual


@numba.njit(cache=True, nogil=True)
def _fit_all(
    residual: NDArray[np.float32],
    variance: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    coefficients: NDArray[np.float64],
    order: int,
    shape: tuple[int, int],
    starts: NDArray[np.float64],
    half: int,
    iterations: int,
    max_move: float,
) -> NDArray[np.float64]:
    """Fit every star on the residual of the others; leaves the image without stars in ``residual``."""
    n = starts.shape[0]
    rows = np.zeros((n, 9))
    size = coefficients.shape[1]
    padded = np.empty((size + 2 * PADDING, size + 2 * PADDING))
    work = np.empty((size, size))
    place = np.empty(2)
    for turn in range(_PASSES):
        for k in range(n):
            evaluate_psf(coefficients, order, shape, starts[k, 0], starts[k, 1], padded)
            place[:] = starts[k]
            if turn > 0:
                if np.isfinite(rows[k, 4]):
                    add_star(residual, padded, rows[k, 0], rows[k, 1], rows[k, 4], work)
                place[:] = rows[k, :2]
            steps = iterations if turn == 0 else min(iterations, _LATER_ITERATIONS)
            fit_star(residual, variance, unusable, padded, half, place, starts[k], steps, max_move, rows[k])
            if np.isfinite(rows[k, 4]):
                add_star(residual, padded, rows[k, 0], rows[k, 1], -rows[k, 4], work)
    return rows


def aperture_photometry(
    masked: MaskedImage, x: NDArray[np.float64], y: NDArray[np.float64], radius: float
) -> Table:
    """Sum the flux in circles.

    Parameters
    ----------
    masked
        Sky-subtracted image. Pixels of `UNUSABLE` are replaced by the mean of the rest of the circle.
    x, y
        Centres [pixel], shape ``(n,)``.
    radius
        Radius [pixel].

    Returns
    -------
    table
        ``flux``, ``flux_err`` (unit of the image) and ``incomplete`` (bool: the circle holds unusable pixels
        or leaves the image).
    """
    unusable = (masked.mask & np.uint16(UNUSABLE)) != 0
    flux, error, flag = sep.sum_circle(
        np.ascontiguousarray(masked.image),
        np.asarray(x, dtype=np.float64),
        np.asarray(y, dtype=np.float64),
        radius,
        var=np.ascontiguousarray(masked.variance),
        mask=unusable,
    )
    return Table({"flux": flux, "flux_err": error, "incomplete": flag != 0})


@dataclass(slots=True, frozen=True)
class ZeroPoint:
    """What one count of an image is in nJy."""

    nanojansky_per_count: float
    """Flux [nJy] of one unit of the image."""
    error_mag: float
    """Standard error of the zero point [mag]."""
    scatter_mag: float
    """Robust scatter of the stars about it [mag]."""
    n_used: int
    """Stars that were kept."""

    @property
    def magnitude(self) -> float:
        """AB magnitude of one count."""
        return 31.4 - 2.5 * float(np.log10(self.nanojansky_per_count))


def fit_zero_point(
    flux: NDArray[np.float64], flux_err: NDArray[np.float64], reference_mag: NDArray[np.float64]
) -> ZeroPoint:
    """Calibrate fluxes against reference stars.

    The weighted mean of the differences, after clipping at three robust standard deviations: variable stars,
    blends and wrong matches fall out. Each star has an error of at least the scatter of the sample, so that
    no few bright stars decide alone. Faint stars are left out if there are 10 others: their selection is
    biased.

    Parameters
    ----------
    flux, flux_err
        Flux of each star and its error, in the unit of the image, shape ``(n,)``.
    reference_mag
        AB magnitude of the same stars in the band of the image.

    Returns
    -------
    zero_point
        The calibration.

    Raises
    ------
    PhotometryError
        If fewer than 3 stars agree, or they scatter by more than 0.3 mag.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = flux / flux_err
        usable = np.isfinite(snr) & np.isfinite(reference_mag) & (flux > 0) & (snr > 5)
        if np.count_nonzero(usable & (snr > 20)) >= 10:
            usable &= snr > 20
    if np.count_nonzero(usable) < 3:
        raise PhotometryError(f"{np.count_nonzero(usable)} stars with a flux and a magnitude: 3 are needed")
    differences = reference_mag[usable] + 2.5 * np.log10(flux[usable])
    errors = _MAGNITUDE / snr[usable]
    kept = np.ones(differences.size, dtype=bool)
    for _ in range(20):
        centre = np.median(differences[kept])
        scatter = 1.4826 * float(np.median(np.abs(differences[kept] - centre)))
        before = kept
        kept = np.abs(differences - centre) <= 3.0 * np.hypot(max(scatter, 1e-3), errors)
        if np.array_equal(kept, before):
            break
    n_used = int(np.count_nonzero(kept))
    if n_used < 3 or n_used < 0.3 * differences.size:
        raise PhotometryError(f"only {n_used} of {differences.size} stars agree on a zero point")
    if scatter > 0.3:
        raise PhotometryError(f"{n_used} stars scatter by {scatter:.2f} mag about the zero point")
    weights = 1.0 / (errors[kept] ** 2 + max(scatter, 1e-3) ** 2)
    magnitude = float(np.sum(weights * differences[kept]) / np.sum(weights))
    spread = float(np.sqrt(np.sum(weights * (differences[kept] - magnitude) ** 2) / np.sum(weights)))
    return ZeroPoint(
        nanojansky_per_count=10.0 ** (0.4 * (31.4 - magnitude)),
        error_mag=spread / float(np.sqrt(n_used)),
        scatter_mag=scatter,
        n_used=n_used,
    )
