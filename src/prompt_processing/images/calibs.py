"""Calibs from raws: bias, dark, flat, gains and read noises, defects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numba
import numpy as np
import sep
from numpy.typing import NDArray

from prompt_processing.domain.errors import HeaderError, NoCalibError, ScienceError
from prompt_processing.images.amplifier import Amplifier
from prompt_processing.images.isr import amplifier_map, assemble_signal, overscan_level, subtract_overscan

_TILE = 32
"""Side of the tiles in which the noise of flats is measured [pixel]."""
_CLIP = 5.0
"""Pixels farther than this many standard deviations are cosmic rays or defects."""
_MANY_FRAMES = 10
"""From so many frames on, two values are dropped at either end instead of one."""
_MESH = 32
"""Cells of the surface that a pixel is compared with [pixel]: vignetting must be smooth over them."""
_HOT_SIGMAS = 8.0
_RESPONSE_LIMITS = (0.8, 1.25)
"""Response of a good pixel relative to its surroundings."""
_RUN = 50
"""Rows over which the median of a column is taken."""


@dataclass(slots=True, frozen=True)
class AmplifierNoise:
    """What a photon transfer tells of one amplifier."""

    gain: float
    """Electrons per adu."""
    read_noise: float
    """Noise of a reading [electron]."""


class _TrimmedMean:
    """Mean of a pile of frames without the extremes of each pixel, one frame at a time.

    Holds six frames, however many are added.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = np.empty(0)
        self._extremes = np.empty(0, dtype=np.float32)

    def add(self, frame: NDArray[np.float32]) -> None:
        if self.count == 0:
            self._sum = np.zeros(frame.shape)
            self._extremes = np.empty((4, *frame.shape), dtype=np.float32)
            self._extremes[:2] = np.inf
            self._extremes[2:] = -np.inf
        elif frame.shape != self._sum.shape:
            raise HeaderError(
                f"frame {self.count + 1} has shape {frame.shape} (y, x), the first {self._sum.shape}"
            )
        _add_frame(np.ascontiguousarray(frame), self._sum, self._extremes)
        self.count += 1

    def mean(self) -> NDArray[np.float32]:
        if self.count == 0:
            raise NoCalibError("no frame to combine")
        if self.count < 3:
            return np.asarray(self._sum / self.count, dtype=np.float32)
        trimmed = 2 if self.count >= _MANY_FRAMES else 1
        total = self._sum - self._extremes[0] - self._extremes[2]
        if trimmed == 2:
            total -= self._extremes[1]
            total -= self._extremes[3]
        total /= self.count - 2 * trimmed
        return np.asarray(total, dtype=np.float32)


@numba.njit(cache=True, nogil=True)
def _add_frame(frame: NDArray[np.float32], total: NDArray[np.float64], extremes: NDArray[np.float32]) -> None:
    """Add a frame and keep the two lowest (0, 1) and the two highest (2, 3) values of each pixel."""
    ny, nx = frame.shape
    for y in range(ny):
        for x in range(nx):
            value = frame[y, x]
            total[y, x] += value
            if value < extremes[0, y, x]:
                extremes[1, y, x] = extremes[0, y, x]
                extremes[0, y, x] = value
            elif value < extremes[1, y, x]:
                extremes[1, y, x] = value
            if value > extremes[2, y, x]:
                extremes[3, y, x] = extremes[2, y, x]
                extremes[2, y, x] = value
            elif value > extremes[3, y, x]:
                extremes[3, y, x] = value


def combine_bias(raws: Iterable[Sequence[Amplifier]]) -> NDArray[np.float32]:
    """Combine bias raws.

    Parameters
    ----------
    raws
        Amplifiers of each raw; read lazily, one raw is held at a time.

    Returns
    -------
    bias
        Trimmed mean of the overscan-subtracted frames [adu], shape ``(ny, nx)``.

    Raises
    ------
    NoCalibError
        If there is no raw.
    HeaderError
        If a raw's amplifiers do not tile its detector, or raws differ in shape.
    """
    pile = _TrimmedMean()
    for amplifiers in raws:
        pile.add(assemble_signal(amplifiers))
    return pile.mean()


def combine_dark(
    raws: Iterable[tuple[Sequence[Amplifier], float]],
    *,
    bias: NDArray[np.float32],
    gains: Mapping[str, float],
) -> NDArray[np.float32]:
    """Combine dark raws.

    Parameters
    ----------
    raws
        Amplifiers and dark time [s] of each raw; read lazily.
    bias
        Combined bias [adu].
    gains
        Gain of each amplifier [electron/adu].

    Returns
    -------
    dark
        Trimmed mean of the dark current [electron/s], shape ``(ny, nx)``.

    Raises
    ------
    NoCalibError
        If there is no raw, or no gain for an amplifier, or the bias has another shape.
    HeaderError
        If a raw's amplifiers do not tile its detector, or a dark time is not positive.
    """
    pile = _TrimmedMean()
    for amplifiers, time in raws:
        if not (np.isfinite(time) and time > 0):
            raise HeaderError(f"dark {pile.count + 1} has a dark time of {time} s")
        pile.add(_electrons(amplifiers, bias, gains) / np.float32(time))
    return pile.mean()


def combine_flat(
    raws: Iterable[tuple[Sequence[Amplifier], float]],
    *,
    bias: NDArray[np.float32],
    dark: NDArray[np.float32],
    gains: Mapping[str, float],
) -> NDArray[np.float32]:
    """Combine flat raws.

    Each is scaled to a median of 1 before, so that the lamp may vary. The gains are applied, so the
    amplifiers join without steps and the flat holds nothing but the response.

    Parameters
    ----------
    raws
        Amplifiers and dark time [s] of each raw; read lazily.
    bias
        Combined bias [adu].
    dark
        Dark current [electron/s].
    gains
        Gain of each amplifier [electron/adu].

    Returns
    -------
    flat
        Relative response, median 1, shape ``(ny, nx)``.

    Raises
    ------
    NoCalibError
        If there is no raw, or no gain for an amplifier, or a calib has another shape.
    HeaderError
        If a raw's amplifiers do not tile its detector.
    ScienceError
        If a raw is dark.
    """
    pile = _TrimmedMean()
    for amplifiers, time in raws:
        frame = _electrons(amplifiers, bias, gains) - dark * np.float32(time)
        level = float(np.median(frame[::3, ::3]))
        if not level > 100.0:
            raise ScienceError(
                f"flat {pile.count + 1} has a median of {level:.1f} electron: the lamp was off"
            )
        frame /= np.float32(level)
        pile.add(frame)
    flat = pile.mean()
    return np.asarray(flat / np.float32(np.median(flat)), dtype=np.float32)


def _electrons(
    amplifiers: Sequence[Amplifier], bias: NDArray[np.float32], gains: Mapping[str, float]
) -> NDArray[np.float32]:
    signal = assemble_signal(amplifiers)
    if signal.shape != bias.shape:
        raise NoCalibError(f"the bias has shape {bias.shape} (y, x), the raw {signal.shape}")
    signal -= bias
    signal *= amplifier_map(amplifiers, gains)
    return signal


def photon_transfer(
    pairs: Iterable[tuple[Sequence[Amplifier], Sequence[Amplifier]]],
) -> dict[str, AmplifierNoise]:
    """Measure gains and read noises from pairs of flats of equal exposure.

    The variance of the difference of two flats is that of their photons and their read noise; the fixed
    pattern drops out. With signals ``m1``, ``m2`` and ``r = m1 / m2``, ``var(S1 - r S2) = m1 (1 + r) / gain +
    (1 + r^2) noise^2`` in adu. It is taken in tiles with clipping, and summed over tiles and pairs: the
    relation is linear, so vignetting does no harm. The read noise comes from the overscan.

    Parameters
    ----------
    pairs
        Amplifiers of the two raws of each pair; read lazily, one pair is held at a time.

    Returns
    -------
    noise
        For each amplifier's name its gain and read noise.

    Raises
    ------
    NoCalibError
        If there is no pair.
    ScienceError
        If an amplifier's flats are too faint or its overscan is useless; the message names it.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    for first, second in pairs:
        for one, other in zip(first, second, strict=True):
            if one.name != other.name:
                raise HeaderError(f"amplifiers {one.name} and {other.name} cannot be a pair of flats")
            sums[one.name] = sums.get(one.name, np.zeros(4)) + _pair_sums(one, other)
    if not sums:
        raise NoCalibError("no pair of flats")
    result = {}
    for name, (signal, excess, variance, count) in sums.items():
        noise = variance / count
        if not (excess > 0 and np.isfinite(noise) and noise > 0 and excess > 2 * noise):
            raise ScienceError(
                f"amplifier {name}: the flats vary no more than the read noise ({np.sqrt(noise):.1f} adu)"
            )
        gain = float(signal / excess)
        result[name] = AmplifierNoise(gain, gain * float(np.sqrt(noise)))
    return result


def _pair_sums(one: Amplifier, other: Amplifier) -> NDArray[np.float64]:
    """Return sums of signal, of variance without read noise, of read variance [adu^2], and 1."""
    noise = float(np.mean([_overscan_variance(amplifier) for amplifier in (one, other)]))
    first, second = subtract_overscan(one), subtract_overscan(other)
    ratio = float(np.median(first)) / max(float(np.median(second)), 1e-6)
    means, variances = _tile_statistics(first, second, ratio)
    usable = np.isfinite(means) & (means > 0)
    if not usable.any():
        raise ScienceError(f"amplifier {one.name}: no light in a pair of flats")
    signal = float(np.mean(means[usable])) * (1 + ratio)
    excess = float(np.mean(variances[usable])) - (1 + ratio**2) * noise
    return np.array([signal, excess, noise, 1.0])


def _overscan_variance(amplifier: Amplifier) -> float:
    """Return the variance of the serial overscan about its level [adu^2], clipped."""
    columns = amplifier.pixels[amplifier.overscan].astype(np.float64)
    residual = columns - overscan_level(amplifier)[:, np.newaxis]
    if residual.shape[1] >= 16:
        residual = residual[:, 3:-1]
    residual = residual[np.isfinite(residual)]
    if residual.size < 50:
        return np.nan
    spread = 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    kept = np.abs(residual - np.median(residual)) <= _CLIP * max(spread, 0.5)
    return float(np.var(residual[kept]))


def _tile_statistics(
    first: NDArray[np.float32], second: NDArray[np.float32], ratio: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean signal of the first flat and clipped variance of the difference, per tile."""
    ny, nx = first.shape
    height, width = min(_TILE, ny), min(_TILE, nx)
    means, variances = [], []
    for y in range(0, ny - height + 1, height):
        for x in range(0, nx - width + 1, width):
            tile = (slice(y, y + height), slice(x, x + width))
            one = first[tile].astype(np.float64).ravel()
            difference = one - ratio * second[tile].astype(np.float64).ravel()
            difference -= np.median(difference)
            spread = 1.4826 * np.median(np.abs(difference))
            kept = np.abs(difference) <= _CLIP * max(spread, 0.5)
            # A hot or dead pixel is the same in both, so the difference does not show it: its signal must not
            # count.
            kept &= np.abs(one - np.median(one)) <= 2 * _CLIP * max(spread, 0.5)
            if kept.sum() > 0.5 * kept.size:
                means.append(float(one[kept].mean()))
                variances.append(float(difference[kept].var()))
    return np.array(means), np.array(variances)


def find_defects(dark: NDArray[np.float32], flat: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Find pixels that cannot be trusted.

    Hot pixels and columns stand out of the dark by 8 robust standard deviations; dead, low and odd pixels and
    columns have a response in the flat outside 0.8 to 1.25 of their surroundings. A column is judged in runs
    of 50 rows by its median, which a few bad pixels do not move.

    Parameters
    ----------
    dark
        Dark current [electron/s], shape ``(ny, nx)``.
    flat
        Relative response, same shape.

    Returns
    -------
    defects
        True on defects, shape ``(ny, nx)``.

    Raises
    ------
    NoCalibError
        If the shapes differ.
    """
    if dark.shape != flat.shape:
        raise NoCalibError(f"the dark has shape {dark.shape} (y, x), the flat {flat.shape}")
    defects = ~(np.isfinite(dark) & np.isfinite(flat) & (flat > 0.01))
    excess = dark - _surface(dark, defects)
    response = flat / np.maximum(_surface(flat, defects), 1e-3)
    spread = _robust_spread(excess[~defects][::7])
    hot = np.where(defects, 0.0, excess) > _HOT_SIGMAS * spread
    low, high = _RESPONSE_LIMITS
    odd = (response < low) | (response > high)
    runs = _run_medians(np.where(defects, 0.0, excess))
    hot_runs = runs > _HOT_SIGMAS * max(_robust_spread(runs), 1e-9)
    runs = _run_medians(np.where(defects, 1.0, response))
    odd_runs = (runs < 0.5 * (1 + low)) | (runs > 0.5 * (1 + high))
    columns = np.repeat(hot_runs | odd_runs, _RUN, axis=0)[: dark.shape[0]]
    return np.asarray(defects | hot | odd | columns)


def _surface(image: NDArray[np.float32], masked: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the smooth part of an image."""
    filled = np.ascontiguousarray(np.where(masked, np.float32(0), image), dtype=np.float32)
    if masked.all():
        return filled
    mesh = min(_MESH, *image.shape)
    return np.asarray(sep.Background(filled, mask=masked, bw=mesh, bh=mesh).back())


def _robust_spread(values: NDArray[np.floating]) -> float:
    if values.size == 0:
        return 0.0
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _run_medians(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the median of each column in runs of rows, shape ``(n_runs, nx)``; the last run may be short."""
    starts = range(0, image.shape[0], _RUN)
    return np.array([np.median(image[start : start + _RUN], axis=0) for start in starts])
