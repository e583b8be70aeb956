"""Astrometry: from a rough pointing to a TAN-SIP solution."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from prompt_processing.domain.errors import AstrometryError
from prompt_processing.images.matching import (
    CELL,
    MATCH_RADIUS,
    MIN_MATCHES,
    Match,
    mutual_pairs,
    search,
    solve_least_squares,
)

MAX_OFFSET = 65.0
"""Largest error of the pointing that is searched [arcsec]."""
MAX_ROTATION_ERROR = 2.2
"""Largest error of the predicted rotation, before every rotation is tried [deg]."""
_BRIGHT = 200
_BRIGHT_BLIND = 120
"""Detections that vote, with a predicted rotation and without."""
_ORDERS = ((100, 3), (40, 2))
"""Stars that a SIP polynomial of that order needs; with fewer the solution is TAN."""
_ERROR_FLOOR = 0.03
"""Error of a star that has none [pixel]: PSF model, atmosphere, catalogue."""


@dataclass(slots=True, frozen=True, eq=False)
class AstrometricSolution:
    """A WCS and the stars that it comes from."""

    wcs: WCS
    """TAN-SIP or TAN, ICRS; it is unchanged by writing it to a header and reading it."""
    detections: NDArray[np.int64]
    """Index of the detection of each star that was used."""
    references: NDArray[np.int64]
    """Row of the catalogue of each star that was used."""
    rms_arcsec: float
    """Rms distance of the used stars from the catalogue, per axis, weighted by their errors [arcsec]."""
    n_used: int
    """Number of stars that were used."""
    offset_arcsec: float
    """Distance of the true pointing from the predicted one [arcsec]."""
    rotation_error: float
    """True less predicted rotation of the image [deg], -180 to 180, in the sense x to y."""
    mirrored: bool
    """Whether the image has the other parity than predicted."""


def _make_wcs(
    ra: float,
    dec: float,
    cd: NDArray[np.float64],
    shape: tuple[int, int],
    sip: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> WCS:
    wcs = WCS(naxis=2)
    suffix = "" if sip is None else "-SIP"
    wcs.wcs.ctype = [f"RA---TAN{suffix}", f"DEC--TAN{suffix}"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = [ra % 360.0, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cd = cd
    wcs.pixel_shape = (shape[1], shape[0])
    if sip is not None:
        wcs.sip = Sip(sip[0], sip[1], None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def _project(
    ra: NDArray[np.float64], dec: NDArray[np.float64], ra0: float, dec0: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gnomonic coordinates (xi, eta) [deg] about a point; NaN beyond 80 deg (FITS WCS paper II)."""
    delta, dec, dec0 = np.radians(ra - ra0), np.radians(dec), np.radians(dec0)
    cosine = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(delta)
    cosine = np.where(cosine > 0.17, cosine, np.nan)
    xi = np.cos(dec) * np.sin(delta) / cosine
    eta = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(delta)) / cosine
    return np.degrees(xi), np.degrees(eta)


def _unproject(xi: float, eta: float, ra0: float, dec0: float) -> tuple[float, float]:
    """Return the sky position [deg] of gnomonic coordinates [deg] about a point."""
    x, y, dec0 = np.radians(xi), np.radians(eta), np.radians(dec0)
    ra = np.arctan2(x, np.cos(dec0) - y * np.sin(dec0))
    dec = np.arctan2(np.sin(dec0) + y * np.cos(dec0), np.hypot(x, np.cos(dec0) - y * np.sin(dec0)))
    return float((ra0 + np.degrees(ra)) % 360.0), float(np.degrees(dec))


def solve(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    refcat: Table,
    predicted: WCS,
    shape: tuple[int, int],
) -> AstrometricSolution:
    """Find the WCS of an image from its stars and a catalogue.

    First near the predicted rotation and parity, then at every rotation with both parities; the pointing may
    be wrong by up to `MAX_OFFSET`.

    Parameters
    ----------
    x, y
        Places of the detections [pixel], shape ``(n,)``; saturated stars are better left out.
    flux
        Their fluxes, any unit: the brightest take part in the vote.
    error
        Error of the places [pixel, per axis]; NaN counts as a bad star.
    refcat
        Columns ``ra``, ``dec`` [deg, ICRS, at the epoch of the image] and ``mag``.
    predicted
        TAN, as the header promises; the boresight at the image's centre.
    shape
        Shape ``(ny, nx)`` of the image.

    Returns
    -------
    solution
        The WCS, TAN-SIP of order 3 with at least 100 stars, of order 2 with 40, else TAN.

    Raises
    ------
    AstrometryError
        If there are fewer than 5 detections, no catalogue star near the field, or no match that could not be
        a chance.
    """
    finite = np.nonzero(np.isfinite(x) & np.isfinite(y) & np.isfinite(flux))[0]
    if finite.size < MIN_MATCHES:
        raise AstrometryError(f"{finite.size} stars were detected: {MIN_MATCHES} are needed for a match")
    order = finite[np.argsort(-flux[finite], kind="stable")]
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    places = np.column_stack([x[order], y[order]]) - centre
    rows, expected = _predict(refcat, predicted, shape)
    match = _find_match(places, expected, predicted, shape)
    if match is None:
        raise AstrometryError(
            f"no convincing match of {order.size} detections with {rows.size} catalogue stars around "
            f"{_describe(predicted)}, at any rotation, in either parity, within {MAX_OFFSET:.0f} arcsec"
        )
    return _fit(places, error[order], order, refcat, rows, match, predicted, shape)


def _describe(wcs: WCS) -> str:
    return f"ra {wcs.wcs.crval[0]:.4f} dec {wcs.wcs.crval[1]:+.4f}"


def _scale(wcs: WCS) -> float:
    """Return the pixel scale [deg]."""
    return float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))))


def _predict(
    refcat: Table, predicted: WCS, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return catalogue rows near the field, brightest first, and the places predicted for them [pixel]."""
    ra, dec = np.asarray(refcat["ra"], dtype=np.float64), np.asarray(refcat["dec"], dtype=np.float64)
    magnitude = np.asarray(refcat["mag"], dtype=np.float64)
    offsets = np.column_stack(_project(ra, dec, *predicted.wcs.crval))
    expected = offsets @ np.linalg.inv(predicted.pixel_scale_matrix).T
    reach = MAX_OFFSET / (3600.0 * _scale(predicted))
    radius = np.hypot(*shape) / 2 + reach
    rows = np.nonzero(np.hypot(*expected.T) < radius)[0]
    if rows.size < MIN_MATCHES:
        raise AstrometryError(
            f"the reference catalogue does not overlap the field: {rows.size} of its {len(refcat)} stars lie "
            f"within {60 * radius * _scale(predicted):.1f} arcmin of {_describe(predicted)}"
        )
    rows = rows[np.argsort(np.nan_to_num(magnitude[rows], nan=99.0), kind="stable")]
    return rows, expected[rows]


def _find_match(
    places: NDArray[np.float64], expected: NDArray[np.float64], predicted: WCS, shape: tuple[int, int]
) -> Match | None:
    """Search near the prediction, then everywhere."""
    reach = MAX_OFFSET / (3600.0 * _scale(predicted))
    # One step of the rotation moves a star in a corner by a cell.
    step = CELL / (np.hypot(*shape) / 2)
    n = int(np.ceil(np.radians(MAX_ROTATION_ERROR) / step))
    near = np.arange(-n, n + 1) * step
    match = search(
        places, expected, angles=near, parities=(False,), reach=reach, shape=shape, n_bright=_BRIGHT
    )
    if match is not None:
        return match
    every = np.linspace(-np.pi, np.pi, int(np.ceil(2 * np.pi / step)), endpoint=False)
    return search(
        places,
        expected,
        angles=every,
        parities=(False, True),
        reach=reach,
        shape=shape,
        n_bright=_BRIGHT_BLIND,
    )


def _fit(
    places: NDArray[np.float64],
    error: NDArray[np.float64],
    order: NDArray[np.int64],
    refcat: Table,
    rows: NDArray[np.int64],
    match: Match,
    predicted: WCS,
    shape: tuple[int, int],
) -> AstrometricSolution:
    """Fit the WCS to the matched stars, match again with it, and fit once more."""
    ra, dec = (np.asarray(refcat[name], dtype=np.float64)[rows] for name in ("ra", "dec"))
    sigma = np.hypot(np.where(np.isfinite(error), error, 1.0), _ERROR_FLOOR)
    one, other = match.detections, match.references
    start = (float(predicted.wcs.crval[0]), float(predicted.wcs.crval[1]))
    for _ in range(3):
        wcs, kept, rms = _fit_sip(places[one], sigma[one], ra[other], dec[other], start, shape)
        used = one[kept], other[kept]
        one, other = _match_again(places, ra, dec, wcs, shape)
        if one.size < MIN_MATCHES:
            break
    xi, eta = _project(wcs.wcs.crval[:1], wcs.wcs.crval[1:], *start)
    return AstrometricSolution(
        wcs=wcs,
        detections=order[used[0]],
        references=rows[used[1]],
        rms_arcsec=rms,
        n_used=int(used[0].size),
        offset_arcsec=float(np.hypot(xi[0], eta[0]) * 3600.0),
        rotation_error=float(np.degrees(match.angle)),
        mirrored=match.mirrored,
    )


def _match_again(
    places: NDArray[np.float64],
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    wcs: WCS,
    shape: tuple[int, int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair detections and catalogue on the tangent plane of a WCS, where no distortion has to be inverted."""
    inverse = np.linalg.inv(wcs.pixel_scale_matrix).T
    pixels = places + (np.array(shape[::-1]) - 1) / 2
    ra0, dec0 = wcs.wcs.crval
    sky = wcs.all_pix2world(pixels, 0)
    flat = np.column_stack(_project(sky[:, 0], sky[:, 1], ra0, dec0)) @ inverse
    catalogue = np.column_stack(_project(ra, dec, ra0, dec0)) @ inverse
    finite = np.nonzero(np.isfinite(catalogue).all(axis=1))[0]
    one, other = mutual_pairs(cKDTree(flat), catalogue[finite], MATCH_RADIUS)
    return one, finite[other]


def _exponents(order: int) -> list[tuple[int, int]]:
    return [(i, total - i) for total in range(order + 1) for i in range(total + 1)]


def _fit_sip(
    places: NDArray[np.float64],
    sigma: NDArray[np.float64],
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    start: tuple[float, float],
    shape: tuple[int, int],
) -> tuple[WCS, NDArray[np.bool_], float]:
    """Fit a TAN-SIP WCS with its reference pixel in the centre, by linear least squares.

    The projected catalogue is a polynomial of the pixel; the reference point moves until the constant is 0.
    The linear part is the CD matrix, and its inverse turns the higher terms into SIP coefficients (Shupe et
    al. 2005).
    """
    kept = np.ones(ra.size, dtype=bool)
    unit = max(shape) / 2.0
    crval = start
    for _ in range(12):
        n = int(kept.sum())
        order = next((o for least, o in _ORDERS if n >= least), 1)
        powers = _exponents(order)
        terms = np.column_stack([(places[:, 0] / unit) ** i * (places[:, 1] / unit) ** j for i, j in powers])
        for _ in range(3):
            sky = np.column_stack(_project(ra, dec, *crval))
            solution = solve_least_squares(terms[kept], sky[kept], 1.0 / sigma[kept] ** 2)
            crval = _unproject(float(solution[0, 0]), float(solution[0, 1]), *crval)
        sky = np.column_stack(_project(ra, dec, *crval))
        residual = (sky - terms @ solution) * 3600.0
        scaled = np.hypot(*residual.T) / sigma
        # Median of a Rayleigh distribution: 1.177 sigma per axis.
        spread = float(np.median(scaled[kept])) / 1.177
        before, kept = kept, scaled <= 4.0 * spread
        weights = 1.0 / sigma[before] ** 2
        rms = float(np.sqrt(np.sum(weights * (residual[before] ** 2).mean(axis=1)) / weights.sum()))
        if np.array_equal(before, kept) or kept.sum() < MIN_MATCHES:
            break
    return _to_wcs(solution, powers, unit, crval, order, shape), before, rms


def _to_wcs(
    solution: NDArray[np.float64],
    powers: list[tuple[int, int]],
    unit: float,
    crval: tuple[float, float],
    order: int,
    shape: tuple[int, int],
) -> WCS:
    linear = {power: solution[k] / unit for k, power in enumerate(powers) if sum(power) == 1}
    cd = np.column_stack([linear[1, 0], linear[0, 1]])
    sip = None
    if order > 1:
        a, b = np.zeros((order + 1, order + 1)), np.zeros((order + 1, order + 1))
        for k, (i, j) in enumerate(powers):
            if i + j > 1:
                a[i, j], b[i, j] = np.linalg.solve(cd, solution[k] / unit ** (i + j))
        sip = a, b
    wcs = _make_wcs(*crval, cd, shape, sip)
    # Header cards round the numbers. What the image gets now must be what a reader gets later.
    rounded = WCS(wcs.to_header(relax=True))
    rounded.pixel_shape = wcs.pixel_shape
    return rounded
