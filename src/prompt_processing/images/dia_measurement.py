"""Measurement of the sources on a difference image, in the columns of the APDB's DiaSource table."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from prompt_processing.images.dia_flags import DISQUALIFYING_FLAGS, is_sharp, pixel_flags
from prompt_processing.images.dia_shapes import Stamp, adaptive_moments, cut_stamp, fit_dipole
from prompt_processing.images.dia_trails import fit_trail
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.photometry import aperture_photometry, psf_photometry
from prompt_processing.images.psf import PsfModel

__all__ = ["DISQUALIFYING_FLAGS", "is_disqualified", "measure"]

APERTURE_RADIUS: Final = 12.0
"""Radius of the aperture flux in pixels: the APDB's definition."""
STAR_RESIDUAL: Final = 0.015
"""Change in units of the star's flux that the subtraction of a bright star can leave behind."""
MIN_COVERAGE: Final = 0.5
"""Least usable share of the squared PSF for a flux without a flag."""
_FWHM_PER_SIGMA: Final = 2.354820045
_MOMENT_ALGORITHM: Final = 1  # APDB: 1 = SDSSShape, adaptive moments

_FLOATS: Final = (
    *("dipoleMeanFlux", "dipoleMeanFluxErr", "dipoleFluxDiff", "dipoleFluxDiffErr"),
    *("dipoleLength", "dipoleAngle", "dipoleChi2"),
    *("trailFlux", "trailFluxErr", "trailRaErr", "trailDecErr", "trailLength", "trailLengthErr"),
    *("trailAngle", "trailAngleErr", "trailChi2"),
    *("ixx", "iyy", "ixy", "ixxPSF", "iyyPSF", "ixyPSF", "extendedness", "psfLnL"),
)
_DOUBLES: Final = ("trailRa", "trailDec")
_COUNTS: Final = ("dipoleNdata", "trailNdata", "trailAlgorithm")
_FLAGS: Final = (
    *("isDipole", "dipoleFitAttempted", "trail_flag", "trail_flag_edge"),
    *("shape_flag", "shape_flag_no_pixels", "shape_flag_not_contained", "shape_flag_parent_source"),
)


@dataclass(slots=True, frozen=True)
class _SkyPositions:
    """Positions on the sky and the local linear WCS of each source."""

    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    """d(ra cos(dec), dec) / d(x, y) in degrees per pixel, shape ``(n, 2, 2)``."""

    @property
    def scale(self) -> NDArray[np.float64]:
        """Pixel scale in arcsec."""
        return 3600.0 * np.sqrt(np.abs(np.linalg.det(self.jacobian)))


def is_disqualified(sources: Table) -> NDArray[np.bool_]:
    """Tell which sources have one of the `DISQUALIFYING_FLAGS`.

    Parameters
    ----------
    sources
        Table from `measure`.

    Returns
    -------
    NDArray
        Shape ``(n,)``.
    """
    result = np.zeros(len(sources), dtype=bool)
    for name in DISQUALIFYING_FLAGS:
        result |= np.asarray(sources[name], dtype=bool)
    return result


def measure(
    difference: MaskedImage,
    science: MaskedImage,
    template: MaskedImage,
    *,
    psf: PsfModel,
    science_psf: PsfModel,
    peaks: Table,
    wcs: WCS,
) -> Table:
    """Measure all detections on a difference image.

    Parameters
    ----------
    difference, science
        Difference image with all mask planes, and science image, on one grid [nJy].
    template
        Template on the same grid with the PSF of the science image (the matched template) [nJy]; with another
        PSF only ``templateFlux`` and the comparison of a star's residual with its flux are biased.
    psf, science_psf
        PSFs of the difference and of the science image.
    peaks
        Table from `~.dia_detection.detect`; the rows of the result are in its order.
    wcs
        WCS of the grid.

    Returns
    -------
    Table
        Columns with names, units and types of the APDB's DiaSource table, as far as they come from pixels.
        ``x``, ``y``, ``ra``, ``dec``, ``psfNdata``, ``trailNdata``, ``dipoleNdata`` and ``bboxSize`` always
        have a value; others are NaN or False where there is nothing to measure. Sources on a streak or on
        saturated pixels get no shapes (``shape_flag``, ``trail_flag``). Where the centroid fails the
        position is the peak's pixel. Position errors are those of the fit, without the WCS's own.
        ``pixelFlags_suspectCenter`` is also set where the flux is less than `STAR_RESIDUAL` of a star's
        underneath, ``pixelFlags_crCenter`` where a source is sharper than the PSF.
    """
    fits = _fit_points(difference, psf, peaks)
    x, y = fits["x"], fits["y"]
    fwhm = psf.fwhm(difference.shape[1] / 2, difference.shape[0] / 2)
    sky = _sky(wcs, x, y)
    columns: dict[str, NDArray[Any]] = {}
    columns |= _positions(fits, sky)
    columns |= _point_fluxes(fits, peaks)
    columns |= _apertures(difference, x, y)
    columns |= _forced(science, template, science_psf, x, y)
    columns |= pixel_flags(difference.mask, x, y, np.asarray(peaks["bbox_size"]), fwhm)
    # Skip shape fits of peaks on a satellite's trail: a trail has hundreds, and their shapes are not used.
    hopeless = columns["pixelFlags_streakCenter"] | columns["pixelFlags_saturatedCenter"]
    columns |= _shapes(difference, psf, peaks, fits, sky, fwhm, hopeless)
    centre = psf.at(difference.shape[1] / 2, difference.shape[0] / 2)
    sharp = is_sharp(difference, peaks["x"], peaks["y"], fits["flux"], float(centre.max()))
    columns["pixelFlags_cr"] = columns["pixelFlags_cr"] | sharp
    columns["pixelFlags_crCenter"] = columns["pixelFlags_crCenter"] | sharp
    residual = np.abs(columns["psfFlux"]) < STAR_RESIDUAL * np.abs(columns["templateFlux"])
    columns["pixelFlags_suspect"] = columns["pixelFlags_suspect"] | residual
    columns["pixelFlags_suspectCenter"] = columns["pixelFlags_suspectCenter"] | residual
    for name in ("injected", "injectedCenter", "injected_template", "injected_templateCenter"):
        columns[f"pixelFlags_{name}"] = np.zeros(len(peaks), dtype=bool)  # nothing is ever injected here
    columns["trail_flag_edge"] = columns["pixelFlags_edge"].copy()
    return Table(columns)


def _fit_points(difference: MaskedImage, psf: PsfModel, peaks: Table) -> dict[str, NDArray[Any]]:
    """Fit a point source to every peak, strongest first, and return the results in the order of the peaks."""
    order = np.argsort(-np.asarray(peaks["snr"]), kind="stable")
    x, y = (np.asarray(peaks[name], dtype=np.float64) for name in ("x", "y"))
    table = psf_photometry(difference, psf, x[order], y[order], free=True)
    back = np.argsort(order, kind="stable")
    return {name: np.asarray(table[name])[back] for name in table.colnames}


def _sky(wcs: WCS, x: NDArray[np.float64], y: NDArray[np.float64]) -> _SkyPositions:
    if len(x) == 0:
        return _SkyPositions(np.empty(0), np.empty(0), np.empty((0, 2, 2)))
    ra, dec = wcs.all_pix2world(x, y, 0)
    jacobian = np.empty((len(x), 2, 2))
    for axis, (dx, dy) in enumerate(((0.5, 0.0), (0.0, 0.5))):
        ra_after, dec_after = wcs.all_pix2world(x + dx, y + dy, 0)
        ra_before, dec_before = wcs.all_pix2world(x - dx, y - dy, 0)
        step = (ra_after - ra_before + 180.0) % 360.0 - 180.0
        jacobian[:, 0, axis] = step * np.cos(np.radians(dec))
        jacobian[:, 1, axis] = dec_after - dec_before
    return _SkyPositions(ra, dec, jacobian)


def _positions(fits: dict[str, NDArray[Any]], sky: _SkyPositions) -> dict[str, NDArray[Any]]:
    variances = np.stack([fits["x_err"] ** 2, fits["y_err"] ** 2], axis=1)
    covariance = np.einsum("nij,nj,nkj->nik", sky.jacobian, variances, sky.jacobian)
    return {
        "x": fits["x"].astype(np.float32),
        "xErr": fits["x_err"].astype(np.float32),
        "y": fits["y"].astype(np.float32),
        "yErr": fits["y_err"].astype(np.float32),
        "ra": sky.ra,
        "raErr": np.sqrt(covariance[:, 0, 0]).astype(np.float32),
        "dec": sky.dec,
        "decErr": np.sqrt(covariance[:, 1, 1]).astype(np.float32),
        "ra_dec_Cov": covariance[:, 0, 1].astype(np.float32),
        "centroid_flag": ~np.isfinite(fits["x_err"]),
    }


def _point_fluxes(fits: dict[str, NDArray[Any]], peaks: Table) -> dict[str, NDArray[Any]]:
    missing = ~np.isfinite(fits["flux"])
    cut = fits["coverage"] < MIN_COVERAGE
    return {
        "isNegative": np.asarray(peaks["is_negative"], dtype=bool),
        "snr": np.asarray(peaks["snr"]).astype(np.float32),
        "bboxSize": np.asarray(peaks["bbox_size"]).astype(np.int32),
        "psfFlux": fits["flux"].astype(np.float32),
        "psfFluxErr": fits["flux_err"].astype(np.float32),
        "psfChi2": fits["chi2"].astype(np.float32),
        "psfNdata": fits["n_pixels"].astype(np.int32),
        "psfFlux_flag": missing | cut,
        "psfFlux_flag_edge": cut & ~missing,
        "psfFlux_flag_noGoodPixels": missing,
    }


def _apertures(
    difference: MaskedImage, x: NDArray[np.float64], y: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    table = aperture_photometry(difference, x, y, APERTURE_RADIUS)
    ny, nx = difference.shape
    edge = np.minimum(np.minimum(x, nx - 1 - x), np.minimum(y, ny - 1 - y))
    truncated = edge < APERTURE_RADIUS
    flux = np.asarray(table["flux"])
    return {
        "apFlux": flux.astype(np.float32),
        "apFluxErr": np.asarray(table["flux_err"]).astype(np.float32),
        "apFlux_flag": truncated | ~np.isfinite(flux),
        "apFlux_flag_apertureTruncated": truncated,
    }


def _forced(
    science: MaskedImage,
    template: MaskedImage,
    psf: PsfModel,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    """Fluxes of science image and template at the places of the sources."""
    columns: dict[str, NDArray[Any]] = {}
    for name, image in (("science", science), ("template", template)):
        table = psf_photometry(image, psf, x, y, free=False)
        columns[f"{name}Flux"] = np.asarray(table["flux"]).astype(np.float32)
        columns[f"{name}FluxErr"] = np.asarray(table["flux_err"]).astype(np.float32)
        if name == "science":
            missing = ~np.isfinite(columns["scienceFlux"])
            cut = np.asarray(table["coverage"]) < MIN_COVERAGE
            columns["forced_PsfFlux_flag"] = missing | cut
            columns["forced_PsfFlux_flag_edge"] = cut & ~missing
            columns["forced_PsfFlux_flag_noGoodPixels"] = missing
    return columns


def _shapes(
    difference: MaskedImage,
    psf: PsfModel,
    peaks: Table,
    fits: dict[str, NDArray[Any]],
    sky: _SkyPositions,
    fwhm: float,
    hopeless: NDArray[np.bool_],
) -> dict[str, NDArray[Any]]:
    """Moments, dipole and trail of each source that is not hopeless."""
    n = len(peaks)
    columns: dict[str, NDArray[Any]] = {name: np.full(n, np.nan, dtype=np.float32) for name in _FLOATS}
    columns |= {name: np.full(n, np.nan) for name in _DOUBLES}
    columns |= {name: np.zeros(n, dtype=np.int32) for name in _COUNTS}
    columns |= {name: np.zeros(n, dtype=bool) for name in _FLAGS}
    for k in range(n):
        x, y = float(fits["x"][k]), float(fits["y"][k])
        middle = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        stamp = cut_stamp(difference, psf.at(x, y), *middle, fwhm)
        row: dict[str, Any] = {"trail_flag": True, "shape_flag": True}
        if stamp.n_pixels == 0:
            row["shape_flag_no_pixels"] = True
        else:
            offset = x - middle[0], y - middle[1]
            sign = -1.0 if peaks["is_negative"][k] else 1.0
            row["psfLnL"] = _log_likelihood(stamp, offset, float(fits["flux"][k]))
            if not hopeless[k]:
                row |= _moments_and_trail(stamp, offset, sign, fwhm, float(peaks["snr"][k]), k, sky)
                row |= _dipole(stamp, offset, fwhm, k, sky)
        for name, value in row.items():
            columns[name][k] = value
    return columns


def _log_likelihood(stamp: Stamp, offset: tuple[float, float], flux: float) -> float:
    """Log likelihood of the pixels of the stamp for the point source that was fitted."""
    used = stamp.weight > 0
    residual = (stamp.data - flux * stamp.model(*offset))[used]
    weight = stamp.weight[used]
    return float(-0.5 * (residual**2 * weight).sum() + 0.5 * np.log(weight / (2.0 * np.pi)).sum())


def _moments_and_trail(
    stamp: Stamp,
    offset: tuple[float, float],
    sign: float,
    fwhm: float,
    snr: float,
    k: int,
    sky: _SkyPositions,
) -> dict[str, Any]:
    sigma = fwhm / _FWHM_PER_SIGMA
    half, scale = stamp.half, float(sky.scale[k])
    model = stamp.model(0.0, 0.0)
    *of_psf, psf_converged = adaptive_moments(model, float(half), float(half), sigma)
    *moments, converged = adaptive_moments(sign * stamp.data, half + offset[0], half + offset[1], sigma)
    if not psf_converged:
        return {}
    row: dict[str, Any] = dict(zip(("ixxPSF", "iyyPSF", "ixyPSF"), np.array(of_psf) * scale**2, strict=True))
    if not converged:
        return row
    size, psf_size = moments[0] + moments[1], of_psf[0] + of_psf[1]
    row |= dict(zip(("ixx", "iyy", "ixy"), np.array(moments) * scale**2, strict=True))
    row |= {"shape_flag": False, "extendedness": float(np.clip(1.0 - psf_size / size, 0.0, 1.0))}
    trail = fit_trail(stamp, offset, tuple(moments), tuple(of_psf), fwhm=fwhm, snr=snr)
    if trail is None:
        return row
    shift = sky.jacobian[k] @ [trail.x - offset[0], trail.y - offset[1]]
    row |= {
        "trail_flag": False,
        "trailFlux": trail.flux,
        "trailFluxErr": trail.flux_err,
        "trailRa": (sky.ra[k] + shift[0] / np.cos(np.radians(sky.dec[k]))) % 360.0,
        "trailDec": sky.dec[k] + shift[1],
        "trailLength": trail.length * scale,
        "trailAngle": _bearing(sky.jacobian[k], np.cos(trail.angle), np.sin(trail.angle)) % 180.0,
        "trailChi2": trail.chi2,
        "trailNdata": stamp.n_pixels,
        "trailAlgorithm": _MOMENT_ALGORITHM,
    }
    if trail.errors is not None:
        variances = np.array(trail.errors[:2]) ** 2
        errors = np.sqrt(sky.jacobian[k] ** 2 @ variances)
        row |= {"trailRaErr": errors[0], "trailDecErr": errors[1]}
        row |= {"trailLengthErr": trail.errors[2] * scale, "trailAngleErr": np.degrees(trail.errors[3])}
    return row


def _dipole(
    stamp: Stamp, offset: tuple[float, float], fwhm: float, k: int, sky: _SkyPositions
) -> dict[str, Any]:
    _, _, point_chi2 = stamp.fit(stamp.model(*offset))
    dipole = fit_dipole(stamp, fwhm, point_chi2)
    if dipole is None:
        return {}
    dx, dy = dipole.positive[0] - dipole.negative[0], dipole.positive[1] - dipole.negative[1]
    return {
        "dipoleFitAttempted": True,
        "isDipole": dipole.is_dipole,
        "dipoleMeanFlux": dipole.mean_flux,
        "dipoleMeanFluxErr": dipole.mean_flux_err,
        "dipoleFluxDiff": dipole.flux_difference,
        "dipoleFluxDiffErr": dipole.flux_difference_err,
        "dipoleLength": float(np.hypot(dx, dy)) * float(sky.scale[k]),
        "dipoleAngle": _bearing(sky.jacobian[k], dx, dy) % 360.0,
        "dipoleChi2": dipole.chi2,
        "dipoleNdata": stamp.n_pixels,
    }


def _bearing(jacobian: NDArray[np.float64], dx: float, dy: float) -> float:
    """Angle from north through east of a direction in pixels, in degrees."""
    east, north = jacobian @ [dx, dy]
    return float(np.degrees(np.arctan2(east, north)))
