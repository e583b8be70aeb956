"""Shapes of difference-image sources: adaptive moments, dipoles and trails.

The pixels of one source are a `Stamp`; models are made of PSF images shifted by fractions of a pixel.
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, signal

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE
from prompt_processing.images.psf_kernels import PADDING, shift_stamp

FIT_RADIUS: Final = 2.0
"""Half size of a stamp in units of the FWHM."""
MOMENT_ITERATIONS: Final = 60
DIPOLE_LOBE: Final = 4.0
"""Least significance of the weaker lobe of a dipole ..."""
DIPOLE_BALANCE: Final = 0.3
"""... which is at least this share of the stronger one's ..."""
DIPOLE_DISTANCE: Final = 1.8
"""... at most this many FWHM away from it ..."""
DIPOLE_GAIN: Final = 15.0
"""... and whose model lowers the chi2 by at least this."""


@dataclass(slots=True, frozen=True)
class Stamp:
    """Square of odd side around a source; everything that is not usable has weight 0."""

    data: NDArray[np.float64]
    """Pixel values, 0 where not usable, shape ``(size, size)``."""
    weight: NDArray[np.float64]
    """Inverse variance, 0 where not usable."""
    psf: NDArray[np.float64]
    """PSF centred on the middle pixel, sum 1, with a frame of `~.psf_kernels.PADDING` zeros."""

    @property
    def half(self) -> int:
        """Half size in pixels."""
        return self.data.shape[0] // 2

    def model(self, x: float, y: float) -> NDArray[np.float64]:
        """Return the image of a point source of flux 1.

        Parameters
        ----------
        x, y
            Offset of the source from the middle pixel [px].

        Returns
        -------
        model
            Image with the shape of the stamp.
        """
        size = self.psf.shape[0] - 2 * PADDING
        ix, iy = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        whole = np.empty((size, size))
        shift_stamp(self.psf, x - ix, y - iy, whole)
        result = np.zeros_like(self.data)
        margin = size // 2 - self.half
        top, left = margin - iy, margin - ix
        rows = slice(max(0, -top), min(result.shape[0], size - top))
        columns = slice(max(0, -left), min(result.shape[1], size - left))
        if rows.start < rows.stop and columns.start < columns.stop:
            result[rows, columns] = whole[
                rows.start + top : rows.stop + top, columns.start + left : columns.stop + left
            ]
        return result

    def fit(self, *models: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Fit the fluxes of models by weighted least squares.

        Parameters
        ----------
        *models
            Images of flux 1, shape ``(size, size)`` of the stamp.

        Returns
        -------
        fluxes, errors, chi2
            Fluxes and errors, shape ``(n_models,)``; NaN, and an infinite chi2, for degenerate models.
        """
        columns = np.stack([model.ravel() for model in models], axis=1)
        weighted = columns * self.weight.ravel()[:, np.newaxis]
        normal = weighted.T @ columns
        if not np.linalg.det(normal) > 1e-9 * np.prod(np.diag(normal)):
            missing = np.full(len(models), np.nan)
            return missing, missing, np.inf
        covariance = np.linalg.inv(normal)
        fluxes = covariance @ (weighted.T @ self.data.ravel())
        residual = self.data.ravel() - columns @ fluxes
        return fluxes, np.sqrt(np.diag(covariance)), float((residual**2 * self.weight.ravel()).sum())

    @property
    def n_pixels(self) -> int:
        """Number of usable pixels."""
        return int(np.count_nonzero(self.weight))


def cut_stamp(difference: MaskedImage, psf: NDArray[np.float64], x: int, y: int, fwhm: float) -> Stamp:
    """Cut the pixels around (x, y).

    Parameters
    ----------
    difference
        Difference image.
    psf
        PSF at the position, shape ``(size, size)``, sum 1.
    x, y
        Middle pixel.
    fwhm
        FWHM of the PSF [px]; the stamp reaches `FIT_RADIUS` times it.

    Returns
    -------
    stamp
        Pixels outside of the image have weight 0.
    """
    half = int(np.ceil(FIT_RADIUS * fwhm))
    ny, nx = difference.shape
    data, weight = np.zeros((2 * half + 1, 2 * half + 1)), np.zeros((2 * half + 1, 2 * half + 1))
    top, left = max(0, y - half), max(0, x - half)
    source = slice(top, min(ny, y + half + 1)), slice(left, min(nx, x + half + 1))
    rows = slice(top - y + half, source[0].stop - y + half)
    columns = slice(left - x + half, source[1].stop - x + half)
    good = (difference.mask[source] & np.uint16(UNUSABLE)) == 0
    good &= np.isfinite(difference.image[source]) & (difference.variance[source] > 0)
    data[rows, columns] = np.where(good, difference.image[source], 0.0)
    weight[rows, columns] = np.where(good, 1.0 / np.where(good, difference.variance[source], 1.0), 0.0)
    return Stamp(data, weight, np.pad(psf, PADDING))


@numba.njit(cache=True, nogil=True)
def adaptive_moments(
    data: NDArray[np.float64], x: float, y: float, sigma: float
) -> tuple[float, float, float, bool]:
    """Measure second moments with an elliptical Gaussian weight that adapts to the source.

    Parameters
    ----------
    data
        Positive source, shape ``(ny, nx)``.
    x, y
        Centre in pixels.
    sigma
        Standard deviation of the first weight in pixels.

    Returns
    -------
    ixx, iyy, ixy, converged
        In pixels squared.

    Notes
    -----
    Bernstein & Jarvis 2002, AJ 123, 583, section 3: at the fixed point the weighted moments are half of the
    weight's.
    """
    wxx, wyy, wxy = sigma * sigma, sigma * sigma, 0.0
    largest = (max(data.shape) / 2.0) ** 2
    for _ in range(MOMENT_ITERATIONS):
        det = wxx * wyy - wxy * wxy
        total, xx, yy, xy = 0.0, 0.0, 0.0, 0.0
        for j in range(data.shape[0]):
            for i in range(data.shape[1]):
                dx, dy = i - x, j - y
                r2 = (wyy * dx * dx + wxx * dy * dy - 2.0 * wxy * dx * dy) / det
                value = np.exp(-0.5 * r2) * data[j, i]
                total += value
                xx += value * dx * dx
                yy += value * dy * dy
                xy += value * dx * dy
        if total <= 0.0:
            return 0.0, 0.0, 0.0, False
        nxx, nyy, nxy = 2.0 * xx / total, 2.0 * yy / total, 2.0 * xy / total
        if not (0.25 < nxx < largest and 0.25 < nyy < largest and nxx * nyy - nxy * nxy > 0.05):
            return 0.0, 0.0, 0.0, False
        moved = abs(nxx - wxx) + abs(nyy - wyy) + abs(nxy - wxy)
        wxx, wyy, wxy = nxx, nyy, nxy
        if moved < 1e-3 * (wxx + wyy):
            return wxx, wyy, wxy, True
    return wxx, wyy, wxy, False


@dataclass(slots=True, frozen=True)
class Dipole:
    """Two point sources of opposite sign; positions are offsets from the stamp's middle in pixels."""

    positive: tuple[float, float]
    negative: tuple[float, float]
    mean_flux: float
    mean_flux_err: float
    flux_difference: float
    flux_difference_err: float
    chi2: float
    is_dipole: bool


def fit_dipole(stamp: Stamp, fwhm: float, point_chi2: float) -> Dipole | None:
    """Fit two point sources of opposite sign where both signs are seen.

    The filtered stamp must have a peak of each sign near the middle; positions are then fitted from there,
    each within half a FWHM, and the fluxes with them.

    Parameters
    ----------
    stamp
        Pixels of the source.
    fwhm
        FWHM of the PSF in pixels.
    point_chi2
        Chi2 of the best single point source on the same pixels.

    Returns
    -------
    Dipole or None
        None where there is nothing to fit. ``is_dipole`` holds if the weaker lobe is significant by itself
        (`DIPOLE_LOBE`), comparable with the stronger (`DIPOLE_BALANCE`), and two sources fit better than
        one by `DIPOLE_GAIN`.
    """
    high, low, balance, weaker = _lobes(stamp, fwhm)
    if weaker < DIPOLE_LOBE:
        return None

    def residual(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        models = stamp.model(*parameters[:2]), stamp.model(*parameters[2:])
        fluxes, _, chi2 = stamp.fit(*models)
        if not np.isfinite(chi2):
            return (np.sqrt(stamp.weight) * stamp.data).ravel()
        fitted = fluxes[0] * models[0] + fluxes[1] * models[1]
        return (np.sqrt(stamp.weight) * (stamp.data - fitted)).ravel()

    start = np.array([*high, *low], dtype=float)
    solution = optimize.least_squares(
        residual, start, bounds=(start - 0.5 * fwhm, start + 0.5 * fwhm), diff_step=1e-2, max_nfev=15
    ).x
    fluxes, errors, chi2 = stamp.fit(stamp.model(*solution[:2]), stamp.model(*solution[2:]))
    if not np.isfinite(chi2) or fluxes[0] <= 0.0 or fluxes[1] >= 0.0:
        return None
    spread = float(np.hypot(*errors))
    return Dipole(
        positive=(float(solution[0]), float(solution[1])),
        negative=(float(solution[2]), float(solution[3])),
        mean_flux=float(fluxes[0] - fluxes[1]) / 2.0,
        mean_flux_err=spread / 2.0,
        flux_difference=float(fluxes[0] + fluxes[1]),
        flux_difference_err=spread,
        chi2=chi2,
        is_dipole=balance >= DIPOLE_BALANCE and point_chi2 - chi2 > DIPOLE_GAIN,
    )


def _lobes(stamp: Stamp, fwhm: float) -> tuple[tuple[int, int], tuple[int, int], float, float]:
    """Return offsets of the strongest positive and negative peak, their balance and the weaker one's S/N."""
    kernel = stamp.psf[::-1, ::-1]
    used = stamp.weight > 0
    variance = np.where(used, 1.0 / np.where(used, stamp.weight, 1.0), 0.0)
    filtered = signal.fftconvolve(stamp.data, kernel, mode="same")
    noise = np.sqrt(np.maximum(signal.fftconvolve(variance, kernel**2, mode="same"), 0.0))
    half = stamp.half
    rows, columns = np.ogrid[-half : half + 1, -half : half + 1]
    near = (rows**2 + columns**2 <= (DIPOLE_DISTANCE * fwhm) ** 2) & (noise > 0.3 * np.median(noise))
    snr = np.where(near, filtered / np.where(noise > 0, noise, 1.0), 0.0)
    top = np.unravel_index(int(np.argmax(snr)), snr.shape)
    bottom = np.unravel_index(int(np.argmin(snr)), snr.shape)
    strengths = sorted((float(snr[top]), float(-snr[bottom])))
    balance = strengths[0] / strengths[1] if strengths[1] > 0 else 0.0
    high = int(top[1]) - half, int(top[0]) - half
    low = int(bottom[1]) - half, int(bottom[0]) - half
    return high, low, balance, strengths[0]
