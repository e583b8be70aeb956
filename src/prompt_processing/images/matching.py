"""Matching stars of an image to a catalogue: rotation grid, voting on the offset, refinement.

The vote is a two-dimensional histogram of all differences between the places of bright detections and of
bright catalogue stars. At the right rotation and parity the true pairs fall into one cell.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import poisson

from prompt_processing.images.psf import polynomial_terms

CELL = 12.0
"""Side of a cell of the vote [pixel]."""
MATCH_RADIUS = 2.0
"""Largest distance of a pair in the end [pixel]."""
MIN_MATCHES = 5
"""Fewest pairs that can be convincing."""
_FALSE_ALARM = 1e-3
"""Accepted probability that a match came about by chance anywhere in the search."""
_PEAKS = 8
"""Peaks of the vote that are looked at more closely."""
_RADII = (2.0 * CELL, CELL, 0.5 * CELL, 2.0 * MATCH_RADIUS, MATCH_RADIUS, MATCH_RADIUS)


@dataclass(slots=True, frozen=True)
class Match:
    """Pairs of detections and catalogue stars."""

    detections: NDArray[np.int64]
    """Index of the detection of each pair."""
    references: NDArray[np.int64]
    """Index of the catalogue star of each pair."""
    angle: float
    """Rotation from the prediction [rad], in the image's sense x to y."""
    mirrored: bool
    """Whether the catalogue was mirrored in x."""
    offset: tuple[float, float]
    """Offset (x, y) of the image's stars from the predicted places at the centre [pixel]."""


@numba.njit(cache=True, nogil=True)
def _vote(
    detections: NDArray[np.float64],
    references: NDArray[np.float64],
    angles: NDArray[np.float64],
    reach: float,
    peaks: NDArray[np.float64],
) -> None:
    """Fill ``peaks`` with (votes, angle, dx, dy) of the best cells, best first, one per angle.

    A cell's votes include its right, upper and upper right neighbours: a true offset near a border is not
    split.
    """
    n_cells = int(np.ceil(2 * reach / CELL)) + 1
    counts = np.zeros((n_cells + 1, n_cells + 1), dtype=np.int32)
    for a in range(angles.size):
        counts[:] = 0
        cosine, sine = np.cos(angles[a]), np.sin(angles[a])
        for r in range(references.shape[0]):
            x = cosine * references[r, 0] - sine * references[r, 1] - reach
            y = sine * references[r, 0] + cosine * references[r, 1] - reach
            for d in range(detections.shape[0]):
                i = int(np.floor((detections[d, 0] - x) / CELL))
                j = int(np.floor((detections[d, 1] - y) / CELL))
                if 0 <= i < n_cells and 0 <= j < n_cells:
                    counts[i, j] += 1
        best, best_i, best_j = -1, 0, 0
        for i in range(n_cells):
            for j in range(n_cells):
                votes = counts[i, j] + counts[i + 1, j] + counts[i, j + 1] + counts[i + 1, j + 1]
                if votes > best:
                    best, best_i, best_j = votes, i, j
        last = peaks.shape[0] - 1
        if best > peaks[last, 0]:
            k = last
            while k > 0 and peaks[k - 1, 0] < best:
                peaks[k] = peaks[k - 1]
                k -= 1
            peaks[k, 0], peaks[k, 1] = best, angles[a]
            peaks[k, 2] = (best_i + 1) * CELL - reach
            peaks[k, 3] = (best_j + 1) * CELL - reach


def search(
    detections: NDArray[np.float64],
    references: NDArray[np.float64],
    *,
    angles: NDArray[np.float64],
    parities: tuple[bool, ...],
    reach: float,
    shape: tuple[int, int],
    n_bright: int,
) -> Match | None:
    """Find the rotation, parity and offset that lay the catalogue on the image.

    Parameters
    ----------
    detections
        Places from the centre of the image [pixel], shape ``(n, 2)``, brightest first.
    references
        Predicted places from the centre of the image [pixel], shape ``(m, 2)``, brightest first.
    angles
        Rotations to try [rad].
    parities
        Whether to mirror the predicted places in x: each value is tried.
    reach
        Largest offset [pixel].
    shape
        Shape ``(ny, nx)`` of the image.
    n_bright
        Detections that take part in the vote.

    Returns
    -------
    match
        The first match, by the votes of its cell, that is no chance; or None.
    """
    ny, nx = shape
    trials = len(angles) * len(parities) * (reach / MATCH_RADIUS) ** 2
    bright = detections[:n_bright]
    for mirrored in parities:
        places = references * np.array([-1.0 if mirrored else 1.0, 1.0])
        # As deep in the catalogue as in the image: by the areas, and half as many again for what is missing.
        radius = np.hypot(nx, ny) / 2 + reach
        wide = len(angles) * abs(angles[-1] - angles[0]) / max(len(angles) - 1, 1) > 1.0
        inside = (
            np.hypot(*places.T) < radius
            if wide
            else (np.abs(places) < np.array([nx, ny]) / 2 + reach + 0.04 * radius).all(axis=1)
        )
        area = np.pi * radius**2 if wide else (nx + 2 * reach) * (ny + 2 * reach)
        chosen = places[inside][: int(np.ceil(1.5 * bright.shape[0] * area / (nx * ny)))]
        peaks = np.zeros((_PEAKS, 4))
        if chosen.size:
            _vote(np.ascontiguousarray(bright), np.ascontiguousarray(chosen), angles, reach, peaks)
        for votes, angle, dx, dy in peaks:
            if votes < MIN_MATCHES - 1:
                continue
            match = _refine(detections, places, angle, (dx, dy), shape, mirrored=mirrored)
            if match is not None and _is_convincing(match, detections, places, shape, trials):
                return match
    return None


def _refine(
    detections: NDArray[np.float64],
    places: NDArray[np.float64],
    angle: float,
    offset: tuple[float, float],
    shape: tuple[int, int],
    *,
    mirrored: bool,
) -> Match | None:
    """Pair stars ever more closely, with a mapping that has more freedom the more pairs there are."""
    cosine, sine = np.cos(angle), np.sin(angle)
    predicted = places @ np.array([[cosine, sine], [-sine, cosine]]) + np.asarray(offset)
    margin = 3 * CELL
    near = np.nonzero((np.abs(predicted) < np.array(shape[::-1]) / 2 + margin).all(axis=1))[0]
    if near.size < MIN_MATCHES:
        return None
    start = predicted[near]
    mapped = start
    tree = cKDTree(detections)
    for radius in _RADII:
        one, other = mutual_pairs(tree, mapped, radius)
        if one.size < MIN_MATCHES:
            return None
        mapped = _map(start, start[other], detections[one], shape)
    one, other = mutual_pairs(tree, mapped, MATCH_RADIUS)
    if one.size < MIN_MATCHES:
        return None
    # Rotation and offset of the whole, for the record: the best similarity transformation.
    source = places[near][other]
    design = np.column_stack([source[:, 0] + 1j * source[:, 1], np.ones(one.size)])
    (factor, shift), *_ = np.linalg.lstsq(design, detections[one] @ np.array([1.0, 1j]), rcond=None)
    return Match(one, near[other], float(np.angle(factor)), mirrored, (float(shift.real), float(shift.imag)))


def mutual_pairs(
    detections: cKDTree, places: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs that are each other's nearest neighbour within a radius.

    Parameters
    ----------
    detections
        Tree of the detections.
    places
        The other places, shape ``(m, 2)``.
    radius
        Largest distance, in the same unit.

    Returns
    -------
    one, other
        Indices into the detections and into ``places``, by ascending ``other``.
    """
    distance, one = detections.query(places, distance_upper_bound=radius)
    _, back = cKDTree(places).query(detections.data)
    other = np.nonzero(np.isfinite(distance))[0]
    other = other[back[one[other]] == other]
    return one[other].astype(np.int64), other.astype(np.int64)


def _map(
    places: NDArray[np.float64],
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Return places moved by the smooth mapping that takes source to target: similarity or polynomial."""
    n = source.shape[0]
    if n < 10:
        design = np.column_stack([source @ np.array([1.0, 1j]), np.ones(n)])
        solution, *_ = np.linalg.lstsq(design, target @ np.array([1.0, 1j]), rcond=None)
        moved = solution[0] * (places @ np.array([1.0, 1j])) + solution[1]
        return np.column_stack([moved.real, moved.imag])
    order = 3 if n >= 100 else 2 if n >= 40 else 1
    centre = np.array(shape[::-1]) / 2
    terms = _polynomial(source + centre, shape, order)
    solution = solve_least_squares(terms, target - source, np.ones(n))
    return np.asarray(places + _polynomial(places + centre, shape, order) @ solution)


def _polynomial(pixels: NDArray[np.float64], shape: tuple[int, int], order: int) -> NDArray[np.float64]:
    return polynomial_terms(pixels[:, 0], pixels[:, 1], shape, order).T


def solve_least_squares(
    terms: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solve a small, well-scaled least-squares problem by its normal equations.

    Parameters
    ----------
    terms
        Shape ``(n, n_terms)``, of order 1.
    values
        Shape ``(n, n_columns)``.
    weights
        Inverse variance of each row, shape ``(n,)``.

    Returns
    -------
    solution
        Shape ``(n_terms, n_columns)``.
    """
    weighted = terms.T * weights
    return np.asarray(np.linalg.solve(weighted @ terms, weighted @ values))


def _is_convincing(
    match: Match,
    detections: NDArray[np.float64],
    places: NDArray[np.float64],
    shape: tuple[int, int],
    trials: float,
) -> bool:
    """Tell whether so many pairs cannot be a chance: Poisson statistics over everything that was tried."""
    ny, nx = shape
    cosine, sine = np.cos(match.angle), np.sin(match.angle)
    moved = places @ np.array([[cosine, sine], [-sine, cosine]]) + np.asarray(match.offset)
    inside = np.count_nonzero((np.abs(moved) < np.array([nx, ny]) / 2).all(axis=1))
    expected = detections.shape[0] * inside * np.pi * MATCH_RADIUS**2 / (nx * ny)
    # The mapping has fitted some pairs by itself.
    n = match.detections.size
    used_up = 2 if n < 10 else 3 if n < 40 else 6 if n < 100 else 10
    return bool(poisson.logsf(n - used_up - 1, expected) + np.log(trials) < np.log(_FALSE_ALARM))
