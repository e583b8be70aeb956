"""Trailed sources: a point source that moved during the exposure."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from prompt_processing.images.dia_shapes import Stamp

REFINE_LENGTH: Final = 0.6
"""Trails longer than this many FWHM ..."""
REFINE_SNR: Final = 8.0
"""... and of at least this S/N are fitted; of others length and angle are those of the moments."""


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
    if length > REFINE_LENGTH * fwhm and snr >= REFINE_SNR:
        parameters, errors = _refine(stamp, parameters, fwhm)
    flux, flux_err, chi2 = stamp.fit(_model(stamp, parameters))
    if not np.isfinite(chi2):
        return None
    x, y, length, angle = (float(value) for value in parameters)
    return Trail(x, y, abs(length), angle % np.pi, float(flux[0]), float(flux_err[0]), chi2, errors)


def _model(stamp: Stamp, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a trail of flux 1: the mean of point sources one pixel or less apart."""
    x, y, length, angle = parameters
    steps = max(1, int(np.ceil(abs(length))))
    offsets = (np.arange(steps) + 0.5) / steps - 0.5 if steps > 1 else np.zeros(1)
    models = [stamp.model(x + length * t * np.cos(angle), y + length * t * np.sin(angle)) for t in offsets]
    mean: NDArray[np.float64] = np.mean(models, axis=0)
    return mean


def _refine(
    stamp: Stamp, start: NDArray[np.float64], fwhm: float
) -> tuple[NDArray[np.float64], tuple[float, float, float, float] | None]:
    def residual(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        model = _model(stamp, parameters)
        flux, _, chi2 = stamp.fit(model)
        fitted = flux[0] * model if np.isfinite(chi2) else 0.0
        return (np.sqrt(stamp.weight) * (stamp.data - fitted)).ravel()

    reach = np.array([fwhm, fwhm, 2.0 * fwhm, np.pi])
    lower, upper = start - reach, start + reach
    lower[2], upper[2] = 0.0, max(2.0 * stamp.half, start[2] + 1.0)
    # The number of points changes at whole lengths: steps must be large enough not to see that.
    found = optimize.least_squares(
        residual, start, bounds=(lower, upper), x_scale=[1, 1, 1, 0.1], diff_step=3e-2, max_nfev=20
    )
    normal = found.jac.T @ found.jac
    if not np.linalg.det(normal) > 0.0:
        return found.x, None
    variances = np.diag(np.linalg.inv(normal))
    if np.any(variances <= 0.0):
        return found.x, None
    x, y, length, angle = np.sqrt(variances)
    return found.x, (float(x), float(y), float(length), float(angle))
