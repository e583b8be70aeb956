"""Measuring the PSF from stars."""

import numba
import numpy as np
import sep
from astropy.table import Table
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from prompt_processing.domain.errors import PsfError
from prompt_processing.images.detection import FWHM_PER_SIGMA
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE
from prompt_processing.images.photometry import subtract_stars
from prompt_processing.images.psf import PsfModel, polynomial_terms
from prompt_processing.images.psf_kernels import PADDING, lagrange_weights, shift_stamp
from prompt_processing.images.psf_stars import MIN_STARS

_STARS_PER_TERM = 7
"""Stars per term of the polynomial in position, and per order of it: 21 stars for a plane, 84 for order 2."""
_STAMP_FWHMS = 2.8
"""Half width of a stamp [FWHM]; with 9 pixels it is 25."""
_MODEL_ERROR = 0.02
"""Error of a pixel [part of the PSF] that stands for what the polynomial cannot follow: keeps the brightest
stars from deciding alone."""
_VARIATION = 0.06
"""The same for the median over all stars, which does not follow the position at all."""
_WING_START = 1.2
"""Radius [FWHM] from which on the model is a smooth profile."""
_WING_BLEND = 0.4
"""Width [FWHM] of the transition."""


def fit_psf(
    masked: MaskedImage, sources: Table, stars: NDArray[np.int64], *, fwhm: float, order: int = 2
) -> PsfModel:
    """Measure the PSF.

    A first model comes from stamps in which the neighbours are masked; with it every source is taken out of
    the image, and the final model comes from the stars alone. Each pixel is a polynomial of the position,
    fitted with outlier rejection to the stars, shifted to the centre of a pixel and scaled to flux 1.

    Parameters
    ----------
    masked
        Sky-subtracted image.
    sources
        Table of `detect_sources`.
    stars
        Rows of ``sources`` from `select_stars`.
    fwhm
        FWHM of the stars [pixel].
    order
        Highest order of the polynomial in position; lower where stars are few.

    Returns
    -------
    psf
        The model. It sums to 1 over its stamp (half width 2.8 FWHM): light farther out, 0.5 % for a Moffat
        profile of beta 3.5, is not modelled and is absorbed by the zero point.

    Raises
    ------
    PsfError
        If fewer than `MIN_STARS` stars remain or the model has no peak in its middle.
    """
    half = int(np.clip(np.ceil(_STAMP_FWHMS * fwhm), 10, 40))
    x, y = np.asarray(sources["x"], dtype=np.float64), np.asarray(sources["y"], dtype=np.float64)
    unusable = (masked.mask & np.uint16(UNUSABLE)) != 0
    image = np.ascontiguousarray(masked.image)
    variance = np.ascontiguousarray(masked.variance)
    xs, ys, _ = sep.winpos(image, x[stars], y[stars], fwhm / FWHM_PER_SIGMA, mask=unusable)
    flux, _, _ = sep.sum_circle(image, xs, ys, 2 * fwhm, mask=unusable)
    others = np.asarray(sources["flux"])
    stamps, weights = _cut_stamps(image, variance, unusable, xs, ys, half)
    _mask_neighbours(weights, x, y, others, stars, xs, ys, fwhm)
    model = _fit_polynomial(stamps, weights, xs, ys, flux, masked.shape, min(order, 1), fwhm)
    # Only the neighbourhood of the stars has to be cleaned.
    distance, _ = cKDTree(np.stack([xs, ys], axis=1)).query(np.stack([x, y], axis=1))
    near = np.nonzero(distance < 2.5 * half)[0]
    rows = np.searchsorted(near, stars)
    for _ in range(2):
        table, residual = subtract_stars(masked, model, x[near], y[near])
        usable = np.isfinite(table["flux"][rows]) & (table["flux"][rows] > 0)
        rows = rows[usable]
        if rows.size < MIN_STARS:
            raise PsfError(f"{rows.size} stars could be fitted: {MIN_STARS} are needed")
        xs, ys, flux = (np.asarray(table[name])[rows] for name in ("x", "y", "flux"))
        stamps, weights, xs, ys = _clean_stamps(residual, variance, unusable, model, xs, ys, flux, fwhm, half)
        model = _fit_polynomial(stamps, weights, xs, ys, flux, masked.shape, order, fwhm)
    stamp = model.at(masked.shape[1] / 2, masked.shape[0] / 2)
    peak = np.unravel_index(np.argmax(stamp), stamp.shape)
    if not np.isfinite(stamp).all() or max(abs(int(peak[0]) - half), abs(int(peak[1]) - half)) > 2:
        raise PsfError(f"the PSF of {rows.size} stars has no peak in its middle")
    return model


def _clean_stamps(
    residual: NDArray[np.float32],
    variance: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    model: PsfModel,
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    flux: NDArray[np.float64],
    fwhm: float,
    half: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return stamps of stars without their neighbours, the weights, and the centres.

    The centre of a star is its windowed centroid. The fitted places will not do: model and places could
    wander off together.
    """
    own = flux[:, None, None] * np.stack([model.at(x, y) for x, y in zip(xs, ys, strict=True)])
    stamps, weights = _cut_stamps(residual, variance, unusable, xs, ys, half)
    offsets = _windowed_centroids(np.where(weights > 0, stamps, 0.0) + own, fwhm / FWHM_PER_SIGMA)
    offsets = np.clip(offsets, -0.5, 0.5)
    stamps, weights = _cut_stamps(residual, variance, unusable, xs + offsets[:, 0], ys + offsets[:, 1], half)
    shifted = np.empty_like(own[0])
    for s, (dx, dy) in enumerate(offsets):
        shift_stamp(np.pad(own[s], PADDING), -dx, -dy, shifted)
        stamps[s] += shifted
    return stamps, weights, xs + offsets[:, 0], ys + offsets[:, 1]


def _windowed_centroids(stamps: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Return the offsets (x, y) of Gaussian-windowed centroids from the middle pixels (SExtractor's XWIN)."""
    half = stamps.shape[1] // 2
    grid = np.arange(-half, half + 1, dtype=np.float64)
    places = np.zeros((stamps.shape[0], 2))
    for _ in range(8):
        in_x = np.exp(-0.5 * ((grid - places[:, :1]) / sigma) ** 2)
        in_y = np.exp(-0.5 * ((grid - places[:, 1:]) / sigma) ** 2)
        rows = np.einsum("sij,sj->si", stamps, in_x)
        columns = np.einsum("sij,si->sj", stamps, in_y)
        total = np.einsum("si,si->s", rows, in_y)
        total = np.where(total > 0, total, np.inf)
        step_x = np.einsum("sj,sj,sj->s", columns, in_x, grid - places[:, :1]) / total
        step_y = np.einsum("si,si,si->s", rows, in_y, grid - places[:, 1:]) / total
        places = np.clip(places + 2.0 * np.stack([step_x, step_y], axis=1), -2.0, 2.0)
    return places


@numba.njit(cache=True, nogil=True)
def _cut_stamps(
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    unusable: NDArray[np.bool_],
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    half: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut out stamps, shifted so that each star sits on the middle pixel; weights are inverse variances.

    A pixel that draws on an unusable one (among the 3 x 3 nearest) or lies outside the image gets weight 0.
    """
    n = 2 * half + 1
    ny, nx = image.shape
    stamps = np.zeros((xs.size, n, n))
    weights = np.zeros((xs.size, n, n))
    wx, wy, unused = np.empty(7), np.empty(7), np.empty(7)
    rows = np.empty((n + 6, n))
    for s in range(xs.size):
        xi, yi = int(np.floor(xs[s] + 0.5)), int(np.floor(ys[s] + 0.5))
        lagrange_weights(xs[s] - xi, wx, unused)
        lagrange_weights(ys[s] - yi, wy, unused)
        for i in range(n + 6):
            y = min(max(yi - half - 3 + i, 0), ny - 1)
            for j in range(n):
                total = 0.0
                for k in range(7):
                    total += wx[k] * image[y, min(max(xi - half - 3 + j + k, 0), nx - 1)]
                rows[i, j] = total
        for i in range(n):
            y = yi - half + i
            for j in range(n):
                x = xi - half + j
                for k in range(7):
                    stamps[s, i, j] += wy[k] * rows[i + k, j]
                if 1 <= y < ny - 1 and 1 <= x < nx - 1 and not unusable[y - 1 : y + 2, x - 1 : x + 2].any():
                    weights[s, i, j] = 1.0 / variance[y, x]
    return stamps, weights


def _mask_neighbours(
    weights: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    flux: NDArray[np.float64],
    stars: NDArray[np.int64],
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    fwhm: float,
) -> None:
    """Set the weight to 0 around every other source, in place; brighter ones get a larger disc."""
    half = weights.shape[1] // 2
    grid = np.arange(-half, half + 1)
    tree = cKDTree(np.stack([x, y], axis=1))
    for s, star in enumerate(stars):
        for other in tree.query_ball_point([xs[s], ys[s]], 2.5 * half):
            if other == star:
                continue
            radius = fwhm * np.clip(1.0 + 0.5 * np.log10(max(flux[other] / flux[star], 0.1)), 0.6, 2.5)
            dx, dy = grid + xs[s] - x[other], grid + ys[s] - y[other]
            weights[s][dx[None, :] ** 2 + dy[:, None] ** 2 < radius**2] = 0.0


def _choose_order(n_stars: int, highest: int) -> int:
    for order in range(highest, 0, -1):
        if n_stars >= _STARS_PER_TERM * order * (order + 1) * (order + 2) // 2:
            return order
    return 0


def _accept_stars(
    chi: NDArray[np.float64], weights: NDArray[np.float64], typical: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which stars follow the model in their cores, at least `MIN_STARS`."""
    core = typical > 0.1 * typical.max()
    used = weights[:, core] > 0
    rms = np.sqrt(np.sum(np.where(used, chi[:, core], 0.0) ** 2, axis=1) / np.maximum(used.sum(axis=1), 1))
    accepted = (rms < max(2.5 * float(np.median(rms)), 1.5)) & (used.sum(axis=1) > 0.5 * core.sum())
    if accepted.sum() < MIN_STARS:
        raise PsfError(f"only {accepted.sum()} of {rms.size} stars have one shape: {MIN_STARS} are needed")
    return np.asarray(accepted)


def _fit_polynomial(
    stamps: NDArray[np.float64],
    weights: NDArray[np.float64],
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    flux: NDArray[np.float64],
    shape: tuple[int, int],
    highest_order: int,
    fwhm: float,
) -> PsfModel:
    """Fit a polynomial in position to every pixel of stamps, with rejection of pixels and of whole stars."""
    if flux.size < MIN_STARS:
        raise PsfError(f"{flux.size} stars: {MIN_STARS} are needed")
    scaled = stamps / flux[:, None, None]
    kept = weights > 0
    # Equal weights give a robust first shape for the part of the error that grows with the signal.
    typical = np.nanmedian(np.where(kept, scaled, np.nan), axis=0)
    typical = np.maximum(np.nan_to_num(typical), 0.0)
    noise = 1.0 / (np.maximum(weights, 1e-30) * flux[:, None, None] ** 2) + (1e-4 * typical.max()) ** 2
    error = noise + (_MODEL_ERROR * typical) ** 2
    # The median over the stars judges first, with allowance for variation over the image: a blend at the rim
    # would bend the polynomial to itself.
    loose = noise + (_VARIATION * typical) ** 2
    stars = _accept_stars((scaled - typical) / np.sqrt(loose), weights, typical)
    for _ in range(3):
        order = _choose_order(int(stars.sum()), highest_order)
        terms = polynomial_terms(xs, ys, shape, order)
        inverse = np.where(kept & stars[:, None, None], 1.0 / error, 0.0)
        coefficients = _solve_pixels(terms, scaled, inverse)
        chi = (scaled - np.einsum("ks,kij->sij", terms, coefficients)) / np.sqrt(error)
        kept = (weights > 0) & (np.abs(chi) < 5.0)
        stars = _accept_stars(chi, weights, typical)
    coefficients = _smooth_wings(
        coefficients, scaled[stars], np.where(kept, noise, np.inf)[stars], xs[stars], ys[stars], shape, fwhm
    )
    sums = coefficients.sum(axis=(1, 2))
    coefficients[1:] -= (sums[1:] / sums[0])[:, None, None] * coefficients[0]
    return PsfModel(coefficients / sums[0], order, shape)


def _smooth_wings(
    coefficients: NDArray[np.float64],
    scaled: NDArray[np.float64],
    noise: NDArray[np.float64],
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
    shape: tuple[int, int],
    fwhm: float,
) -> NDArray[np.float64]:
    """Replace the wings by a round profile that varies more slowly over the image.

    A wing pixel of one star is mostly noise, and thousands of them decide the normalisation. The median over
    each ring is robust against what is left of neighbours. ``noise`` is infinite where a pixel is not used.
    """
    half = scaled.shape[1] // 2
    grid = np.arange(-half, half + 1, dtype=np.float64)
    radius = np.hypot(grid[:, None], grid[None, :])
    rings = np.arange(int(_WING_START * fwhm) - 1, int(np.ceil(radius.max())) + 1)
    order = min(_choose_order(len(xs) // 3, 2), _order_of(coefficients.shape[0]))
    terms = polynomial_terms(xs, ys, shape, order)
    profile = np.zeros((coefficients.shape[0], rings.size))
    rows = _term_rows(order, _order_of(coefficients.shape[0]))
    for n, ring in enumerate(rings):
        inside = np.abs(radius - ring) <= 0.75
        used = np.isfinite(noise[:, inside])
        count = used.sum(axis=1)
        enough = count > 0.3 * inside.sum()
        if enough.sum() < MIN_STARS:
            profile[:, n] = profile[:, n - 1]
            continue
        values = np.ma.median(np.ma.masked_array(scaled[:, inside], ~used), axis=1).filled(0.0)[enough]
        variance = np.where(used, noise[:, inside], 0.0).sum(axis=1)[enough] / count[enough] ** 2
        weights = 1.0 / (variance + (0.2 * np.median(np.abs(values))) ** 2)
        kept = np.ones(values.size, dtype=bool)
        for _ in range(3):
            root = np.sqrt(weights[kept])
            solution, *_ = np.linalg.lstsq(
                terms[:, enough][:, kept].T * root[:, None], values[kept] * root, rcond=None
            )
            chi = (values - solution @ terms[:, enough]) * np.sqrt(weights)
            spread = 1.4826 * float(np.median(np.abs(chi)))
            kept = np.abs(chi) <= 3.0 * max(spread, 1e-12)
            if kept.sum() < max(MIN_STARS, 2 * terms.shape[0]):
                break
        profile[rows, n] = solution
    blend = np.clip((radius / fwhm - _WING_START) / _WING_BLEND, 0.0, 1.0)
    wings = np.stack([np.interp(radius, rings, values) for values in profile])
    # A sky that was taken too high makes the mean wing negative.
    wings[0] = np.maximum(wings[0], 0.0)
    return (1.0 - blend) * coefficients + blend * wings


def _order_of(n_terms: int) -> int:
    return int(np.sqrt(2 * n_terms)) - 1


def _term_rows(order: int, highest: int) -> list[int]:
    """Return where the terms of a polynomial stand among those of a higher order."""
    exponents = [(i, j) for i in range(highest + 1) for j in range(highest + 1 - i)]
    return [exponents.index((i, j)) for i in range(order + 1) for j in range(order + 1 - i)]


@numba.njit(cache=True, nogil=True)
def _solve_pixels(
    terms: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve the weighted least squares of every pixel; higher terms are damped where stars are few."""
    n_terms, n_stars = terms.shape
    size = values.shape[1]
    coefficients = np.zeros((n_terms, size, size))
    normal, right = np.empty((n_terms, n_terms)), np.empty(n_terms)
    for i in range(size):
        for j in range(size):
            normal[:] = 0.0
            right[:] = 0.0
            for s in range(n_stars):
                w = weights[s, i, j]
                if w > 0:
                    for a in range(n_terms):
                        right[a] += w * terms[a, s] * values[s, i, j]
                        for b in range(n_terms):
                            normal[a, b] += w * terms[a, s] * terms[b, s]
            if normal[0, 0] <= 0:
                continue
            for a in range(1, n_terms):
                normal[a, a] += 1e-3 * normal[0, 0]
            coefficients[:, i, j] = np.linalg.solve(normal, right)
    return coefficients
