"""Trails of satellites and aircraft on a difference image.

A Hough transform (Duda & Hart 1972, CACM 15, 11) of significant blocks finds lines; their place and width are
then measured on the pixels.
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import UNUSABLE, MaskPlane

BLOCK: Final = 8
"""Side of a block in pixels."""
BLOCK_THRESHOLD: Final = 2.5
"""Significance from which on a block votes for the lines through it."""
PIXEL_CLIP: Final = 5.0
"""Significance to which pixels are clipped, so that one bright pixel does not make a block."""
MIN_LENGTH: Final = 0.12
"""Least length of a trail in units of the image's diagonal ..."""
MIN_BLOCKS: Final = 30
"""... and in blocks."""
MIN_FILLING: Final = 0.6
"""Least share of the blocks along a trail that are significant."""
MAX_GAP: Final = 6
"""Longest gap in a trail, in blocks."""
MAX_DENSITY: Final = 0.1
"""Largest share of significant blocks in the image: with more of them, any line looks like a trail."""
MAX_STREAKS: Final = 5
"""Most trails of each sign that are looked for."""
MAX_HALF_WIDTH: Final = 48
"""Largest half width of a trail, in pixels."""
PROFILE_FLOOR: Final = 0.1
"""A trail reaches as far as its mean profile is above this many standard deviations of a pixel."""


@dataclass(slots=True, frozen=True)
class _Line:
    """Points with ``x cos(angle) + y sin(angle) = distance``, ``first <= y cos - x sin <= last`` [pixel]."""

    angle: float
    distance: float
    first: float
    last: float


def mask_streaks(difference: MaskedImage) -> int:
    """Find trails on a difference image and set ``STREAK`` on their pixels, in place.

    Parameters
    ----------
    difference
        Difference image with white noise; pixels of `UNUSABLE` planes and ``SUSPECT`` ones (the
        surroundings of bright stars) do not take part in the search. ``STREAK`` bits that are already set
        stay.

    Returns
    -------
    int
        Number of trails found. A trail is straight and at least 12 % of the image's diagonal and 240 px
        long; it may be positive (science image) or negative (template).
    """
    left_out = np.uint16(UNUSABLE | MaskPlane.SUSPECT | MaskPlane.SAT_TEMPLATE)
    significance, counts = _significance(difference.image, difference.variance, difference.mask & left_out)
    blocks = _bin(significance, counts)
    found = 0
    for sign in (1.0, -1.0):
        left = sign * blocks
        for _ in range(MAX_STREAKS):
            line = _strongest_line(left)
            if line is None:
                break
            refined = _refine(sign * significance, line)
            half_width = _half_width(sign * significance, counts, refined)
            if half_width > 0:
                _mark(difference.mask, refined, half_width)
                found += 1
    return found


@numba.njit(cache=True, nogil=True)
def _significance(
    image: NDArray[np.float32], variance: NDArray[np.float32], left_out: NDArray[np.uint16]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pixels over their noise, clipped; 0 where a pixel is left out, and which pixels are not."""
    ny, nx = image.shape
    result = np.zeros((ny, nx), dtype=np.float32)
    used = np.zeros((ny, nx), dtype=np.bool_)
    for y in range(ny):
        for x in range(nx):
            if left_out[y, x] == 0 and variance[y, x] > 0:
                used[y, x] = True
                value = image[y, x] / np.sqrt(variance[y, x])
                result[y, x] = min(max(value, -PIXEL_CLIP), PIXEL_CLIP)
    return result, used


@numba.njit(cache=True, nogil=True)
def _bin(significance: NDArray[np.float32], used: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Significance of each whole block; NaN where less than half of it is used."""
    ny, nx = significance.shape[0] // BLOCK, significance.shape[1] // BLOCK
    blocks = np.full((ny, nx), np.nan)
    for by in range(ny):
        for bx in range(nx):
            total, n = 0.0, 0
            for y in range(by * BLOCK, (by + 1) * BLOCK):
                for x in range(bx * BLOCK, (bx + 1) * BLOCK):
                    if used[y, x]:
                        total += significance[y, x]
                        n += 1
            if n >= BLOCK * BLOCK // 2:
                blocks[by, bx] = total / np.sqrt(n)
    return blocks


def _strongest_line(blocks: NDArray[np.float64]) -> _Line | None:
    """Return the line that most significant blocks lie on, if they fill a long piece of it.

    What is found is taken out of ``blocks`` (NaN), for the next search.
    """
    ny, nx = blocks.shape
    diagonal = float(np.hypot(ny, nx))
    least = max(MIN_BLOCKS, MIN_LENGTH * diagonal)
    valid = np.isfinite(blocks)
    hits = np.argwhere(np.where(valid, blocks, 0.0) > BLOCK_THRESHOLD).astype(np.float64)
    if len(hits) < MIN_FILLING * least or len(hits) > MAX_DENSITY * valid.sum():
        return None
    angles = np.arange(0.0, np.pi, 1.0 / diagonal)
    votes = _vote(hits, angles, int(diagonal) + 2)
    best, bin_number = np.unravel_index(int(np.argmax(votes)), votes.shape)
    angle, distance = float(angles[best]), float(bin_number) - (int(diagonal) + 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    across = np.abs(hits[:, 1] * cosine + hits[:, 0] * sine - distance)
    along = (hits[:, 0] * cosine - hits[:, 1] * sine)[across <= 1.5]
    steps = np.arange(-np.ceil(diagonal), np.ceil(diagonal) + 1)
    x, y = np.rint(distance * cosine - steps * sine), np.rint(distance * sine + steps * cosine)
    inside = (x >= 0) & (y >= 0) & (x < nx) & (y < ny)
    inside[inside] = valid[y[inside].astype(int), x[inside].astype(int)]
    steps = steps[inside]
    first, last = _longest_run(steps, np.isin(steps, np.rint(along)), least)
    if last <= first:
        return None
    rows, columns = np.ogrid[:ny, :nx]
    blocks[np.abs(columns * cosine + rows * sine - distance) <= 1.5 + MAX_HALF_WIDTH / BLOCK / 2] = np.nan
    centre = (BLOCK - 1) / 2.0  # of block 0, in pixels
    offset = centre * (cosine + sine)
    shift = centre * (cosine - sine)
    return _Line(angle, distance * BLOCK + offset, first * BLOCK + shift, last * BLOCK + shift)


@numba.njit(cache=True, nogil=True)
def _vote(hits: NDArray[np.float64], angles: NDArray[np.float64], offset: int) -> NDArray[np.int32]:
    """Count for each angle and rounded distance (plus offset) the hits (y, x) on that line."""
    votes = np.zeros((len(angles), 2 * offset + 1), dtype=np.int32)
    for a in range(len(angles)):
        cosine, sine = np.cos(angles[a]), np.sin(angles[a])
        for n in range(len(hits)):
            distance = hits[n, 1] * cosine + hits[n, 0] * sine
            votes[a, int(np.floor(distance + 0.5)) + offset] += 1
    return votes


def _longest_run(steps: NDArray[np.float64], hit: NDArray[np.bool_], least: float) -> tuple[float, float]:
    """Return first and last of the longest run of hits; both 0 if it is too short or too thin.

    ``steps`` are the ascending positions along the line that could be a hit: masked ones neither break nor
    thin a run.
    """
    places = np.flatnonzero(hit)
    if places.size == 0:
        return 0.0, 0.0
    breaks = np.flatnonzero(np.diff(places) > MAX_GAP)
    starts = np.concatenate([[0], breaks + 1])
    stops = np.concatenate([breaks, [places.size - 1]])
    lengths = places[stops] - places[starts] + 1
    best = int(np.argmax(lengths))
    filling = (stops[best] - starts[best] + 1) / lengths[best]
    if lengths[best] < least or filling < MIN_FILLING:
        return 0.0, 0.0
    return float(steps[places[starts[best]]]), float(steps[places[stops[best]]])


def _refine(significance: NDArray[np.float32], line: _Line) -> _Line:
    """Fit the line through the centroids of the light in pieces of it."""
    pieces = max(4, int((line.last - line.first) / 32))
    weight, across = _centroids(
        significance, line.angle, line.distance, line.first, line.last, 3 * BLOCK, pieces
    )
    middle = line.first + (np.arange(pieces) + 0.5) * (line.last - line.first) / pieces
    good = weight > 0
    good &= np.abs(across) < 2 * BLOCK
    if good.sum() < 3:
        return line
    for _ in range(3):
        slope, intercept = np.polyfit(middle[good], across[good], 1, w=np.sqrt(weight[good]))
        residual = across - slope * middle - intercept
        spread = max(1.4826 * float(np.median(np.abs(residual[good]))), 0.2)
        good = (weight > 0) & (np.abs(residual) < 3.0 * spread)
        if good.sum() < 3:
            return line
    # Points of the line are (along, distance + intercept + slope * along) in the rotated frame.
    turn = -float(np.arctan(slope))
    scale = float(np.cos(turn))
    return _Line(
        line.angle + turn,
        (line.distance + float(intercept)) * scale,
        line.first / scale - abs(line.distance * np.sin(turn)),
        line.last / scale + abs(line.distance * np.sin(turn)),
    )


@numba.njit(cache=True, nogil=True)
def _centroids(
    significance: NDArray[np.float32],
    angle: float,
    distance: float,
    first: float,
    last: float,
    half_width: float,
    pieces: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and centroid across the line of the significance in each piece of the line."""
    ny, nx = significance.shape
    cosine, sine = np.cos(angle), np.sin(angle)
    weight, moment = np.zeros(pieces), np.zeros(pieces)
    for y in range(ny):
        for x in range(nx):
            across = x * cosine + y * sine - distance
            along = y * cosine - x * sine
            if abs(across) <= half_width and first <= along < last:
                piece = min(int((along - first) / (last - first) * pieces), pieces - 1)
                weight[piece] += significance[y, x]
                moment[piece] += significance[y, x] * across
    for p in range(pieces):
        moment[p] = moment[p] / weight[p] if weight[p] > 0 else 0.0
    return weight, moment


def _half_width(significance: NDArray[np.float32], used: NDArray[np.bool_], line: _Line) -> int:
    """Return how far the trail reaches from its middle, in pixels; 0 if there is none."""
    profile = _profile(significance, used, line.angle, line.distance, line.first, line.last, MAX_HALF_WIDTH)
    # Both sides together, and less the level far out, which is not the trail's.
    folded = 0.5 * (profile[MAX_HALF_WIDTH:] + profile[MAX_HALF_WIDTH::-1])
    folded -= np.median(folded[-8:])
    if folded[0] <= PROFILE_FLOOR:
        return 0
    below = np.flatnonzero(folded <= PROFILE_FLOOR)
    return (int(below[0]) if below.size else MAX_HALF_WIDTH) + 2


@numba.njit(cache=True, nogil=True)
def _profile(
    significance: NDArray[np.float32],
    used: NDArray[np.bool_],
    angle: float,
    distance: float,
    first: float,
    last: float,
    half_width: int,
) -> NDArray[np.float64]:
    """Mean significance at each whole distance across the line, from ``-half_width`` to ``half_width``."""
    ny, nx = significance.shape
    cosine, sine = np.cos(angle), np.sin(angle)
    total, count = np.zeros(2 * half_width + 1), np.zeros(2 * half_width + 1)
    for y in range(ny):
        for x in range(nx):
            across = x * cosine + y * sine - distance
            along = y * cosine - x * sine
            if abs(across) <= half_width and first <= along <= last and used[y, x]:
                k = int(np.floor(across + 0.5)) + half_width
                total[k] += significance[y, x]
                count[k] += 1
    return total / np.maximum(count, 1.0)


def _mark(mask: NDArray[np.uint16], line: _Line, half_width: int) -> None:
    """Set ``STREAK`` along the line, a little beyond its ends: faint ends do not make significant blocks."""
    margin = max(4.0 * half_width, 2.0 * MAX_GAP * BLOCK)
    _mark_pixels(
        mask,
        line.angle,
        line.distance,
        line.first - margin,
        line.last + margin,
        float(half_width),
        np.uint16(MaskPlane.STREAK),
    )


@numba.njit(cache=True, nogil=True)
def _mark_pixels(
    mask: NDArray[np.uint16],
    angle: float,
    distance: float,
    first: float,
    last: float,
    half_width: float,
    bit: np.uint16,
) -> None:
    ny, nx = mask.shape
    cosine, sine = np.cos(angle), np.sin(angle)
    for y in range(ny):
        for x in range(nx):
            along = y * cosine - x * sine
            if abs(x * cosine + y * sine - distance) <= half_width and first <= along <= last:
                mask[y, x] |= bit
