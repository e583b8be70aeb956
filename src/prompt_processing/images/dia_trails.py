"""Trailed sources: a point source that moved during the exposure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize

from prompt_processing.images.dia_shapes import Stamp

REFINE_LENGTH: Final = 0.6
"""Trails longer than this many FWHM ..."""
REFINE_EXCESS: Final = 8.0
"""... whose second moment is above the PSF's by this many times its relative error, about 1 / (S/N), are
fitted; of others length and angle are those of the moments."""


@dataclass(slots=True, frozen=True)
class Trail:
    """A uniform line convolved with the PSF; x and y are offsets from the stamp's middle in pixels."""

    x: float
    y: float
    length: float
    """Length in pixels."""
    angle: float
    """Direction in radians from +x towards +y, 0 to pi."""
    flux: float
    flux_err: float
    chi2: float
    errors: tuple[float, float, float, float] | None
    """Standard errors of x, y, length and angle, where they were fitted."""


def fit_trail(
    stamp: Stamp,
    centre: tuple[float, float],
    moments: tuple[float, float, float],
    psf_moments: tuple[float, float, float],
    *,
    fwhm: float,
    snr: float,
) -> Trail | None:
    """Fit a trail.

    Parameters
    ----------
    stamp
        Pixels of the source.
    centre
        Offset of the source from the stamp's middle in pixels.
    moments, psf_moments
        Ixx, Iyy, Ixy of source and PSF in pixels squared.
    fwhm
        FWHM of the PSF in pixels.
    snr
        S/N of the source.

    Returns
    -------
    Trail or None
        None where no flux can be fitted.

    Notes
    -----
    A uniform line of length L adds ``L**2 / 12`` to the second moment along it; that is where the fit begins.
    """
    excess = [a - b for a, b in zip(moments, psf_moments, strict=True)]
    angle = 0.5 * float(np.arctan2(2.0 * excess[2], excess[0] - excess[1])) % np.pi
    largest = 0.5 * (excess[0] + excess[1]) + float(np.hypot(0.5 * (excess[0] - excess[1]), excess[2]))
    length = float(np.sqrt(12.0 * max(largest, 0.0)))
    parameters = np.array([*centre, length, angle])
    errors = None
    model = _TrailModel(stamp)
    significant = largest * snr > REFINE_EXCESS * 0.5 * (psf_moments[0] + psf_moments[1])
    if length > REFINE_LENGTH * fwhm and significant:
        parameters, errors = _refine(stamp, model, parameters, fwhm)
    flux, flux_err, chi2 = stamp.fit(model(parameters))
    if not np.isfinite(chi2):
        return None
    x, y, length, angle = (float(value) for value in parameters)
    return Trail(x, y, abs(length), angle % np.pi, float(flux[0]), float(flux_err[0]), chi2, errors)


class _TrailModel:
    """Images of trails of flux 1: the transform of the PSF times that of a line, which is a sinc."""

    def __init__(self, stamp: Stamp) -> None:
        self._half = stamp.half
        margin = max(0, stamp.psf.shape[0] // 2 - 2 * stamp.half)  # light from there never reaches the stamp
        psf = stamp.psf[margin : stamp.psf.shape[0] - margin, margin : stamp.psf.shape[1] - margin]
        self._size = fft.next_fast_len(psf.shape[0] + 2 * stamp.half, real=True)
        middle = psf.shape[0] // 2
        field = np.zeros((self._size, self._size))
        field[: psf.shape[0], : psf.shape[1]] = psf
        self._psf = fft.rfft2(np.roll(field, (-middle, -middle), axis=(0, 1)))
        self._fx = fft.rfftfreq(self._size)[np.newaxis, :]
        self._fy = fft.fftfreq(self._size)[:, np.newaxis]

    def __call__(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the image for x, y, length and angle, shape of the stamp."""
        x, y, length, angle = parameters
        phase = np.pi * length * (self._fx * np.cos(angle) + self._fy * np.sin(angle))
        small = np.abs(phase) < 1e-6
        line = np.where(small, 1.0, np.sin(phase) / np.where(small, 1.0, phase))
        # The middle of the stamp is put where nothing wraps around.
        across = np.exp(-2j * np.pi * self._fx * (x + self._half))
        down = np.exp(-2j * np.pi * self._fy * (y + self._half))
        image = fft.irfft2(self._psf * line * across * down, s=(self._size, self._size))
        side = 2 * self._half + 1
        result: NDArray[np.float64] = image[:side, :side]
        return result


def _refine(
    stamp: Stamp, model: _TrailModel, start: NDArray[np.float64], fwhm: float
) -> tuple[NDArray[np.float64], tuple[float, float, float, float] | None]:
    def residual(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        image = model(parameters)
        flux, _, chi2 = stamp.fit(image)
        fitted = flux[0] * image if np.isfinite(chi2) else 0.0
        return (np.sqrt(stamp.weight) * (stamp.data - fitted)).ravel()

    reach = np.array([fwhm, fwhm, 2.0 * fwhm, np.pi])
    lower, upper = start - reach, start + reach
    lower[2], upper[2] = 0.0, max(2.0 * stamp.half, start[2] + 1.0)
    found = optimize.least_squares(
        residual, start, bounds=(lower, upper), x_scale=[1, 1, 1, 0.1], diff_step=1e-3, max_nfev=20
    )
    normal = found.jac.T @ found.jac
    if not np.linalg.det(normal) > 0.0:
        return found.x, None
    variances = np.diag(np.linalg.inv(normal))
    if np.any(variances <= 0.0):
        return found.x, None
    x, y, length, angle = np.sqrt(variances)
    return found.x, (float(x), float(y), float(length), float(angle))
