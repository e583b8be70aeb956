"""Instrument signature removal: from raw amplifiers to electrons with variance and mask."""

from collections.abc import Mapping, Sequence

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.signal import savgol_filter

from prompt_processing.domain.errors import HeaderError, NoCalibError, RawError
from prompt_processing.images.amplifier import Amplifier, assemble, detector_shape, orient
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.interpolation import fill_pixels
from prompt_processing.images.masks import MASK_DTYPE, UNUSABLE, MaskPlane

EDGE_WIDTH = 2
"""Pixels along the border that are marked ``EDGE``."""
SATURATION_GROWTH = 2
"""Pixels around a saturated one that are marked ``SAT`` too."""
SUSPECT_FRACTION = 0.9
"""Part of the saturation level from which on a pixel is ``SUSPECT``."""
_MIN_USABLE_FRACTION = 0.05
"""An image with fewer usable pixels is refused."""
_SMOOTHING_ROWS = 101
"""Window of the smoothing of the overscan along y [rows]."""
_MIN_FLAT = 0.01
"""A smaller relative response is a dead pixel."""


def overscan_level(amplifier: Amplifier) -> NDArray[np.float64]:
    """Return the electronic offset of each data row, from the serial overscan.

    Each row is averaged over the middle half of its sorted values: as robust as a median where a few columns
    are wrong, without its steps on whole numbers. The first columns are left out where there are enough,
    because charge that was deferred lands there. Rows far from the running median, which a bleeding star
    reached, are replaced by it, and a quadratic Savitzky-Golay filter leaves only the slow drift.

    Parameters
    ----------
    amplifier
        The amplifier; its overscan must be at least one column wide.

    Returns
    -------
    level
        Shape ``(ny,)`` [adu], in the order of readout; NaN where the amplifier gives no finite number.
    """
    columns = amplifier.pixels[amplifier.overscan].astype(np.float64)
    width = columns.shape[1]
    if width >= 16:
        columns = columns[:, 3:-1]
        width -= 4
    columns = np.sort(columns, axis=1)
    rows = columns[:, width // 4 : width - width // 4].mean(axis=1)
    finite = np.isfinite(rows)
    if not finite.any():
        return np.full(rows.size, np.nan)
    rows = np.interp(np.arange(rows.size), np.nonzero(finite)[0], rows[finite])
    window = min(_SMOOTHING_ROWS, rows.size // 2 * 2 - 1)
    if window < 5:
        return np.full(rows.size, np.median(rows))
    median = median_filter(rows, size=window // 4 * 2 + 1, mode="nearest")
    spread = 1.4826 * float(np.median(np.abs(rows - median)))
    rows = np.where(np.abs(rows - median) > 5.0 * max(spread, 0.1), median, rows)
    return np.asarray(savgol_filter(rows, window, 2, mode="interp"))


def subtract_overscan(amplifier: Amplifier) -> NDArray[np.float32]:
    """Return the data section of an amplifier without its electronic offset.

    Parameters
    ----------
    amplifier
        The amplifier.

    Returns
    -------
    signal
        Shape of the data section [adu], in the order of readout.
    """
    level = overscan_level(amplifier)
    return (amplifier.pixels[amplifier.data] - level[:, np.newaxis]).astype(np.float32)


def assemble_signal(amplifiers: Sequence[Amplifier]) -> NDArray[np.float32]:
    """Return the detector without the electronic offset, otherwise uncorrected.

    Parameters
    ----------
    amplifiers
        Every amplifier of one detector.

    Returns
    -------
    signal
        Shape ``(ny, nx)`` [adu].

    Raises
    ------
    HeaderError
        If the amplifiers do not tile the detector.
    """
    detector_shape(amplifiers)
    return assemble(amplifiers, [subtract_overscan(amplifier) for amplifier in amplifiers])


def amplifier_map(amplifiers: Sequence[Amplifier], values: Mapping[str, float]) -> NDArray[np.float32]:
    """Return a detector image that holds one number per amplifier, for example its gain.

    Parameters
    ----------
    amplifiers
        Every amplifier of one detector.
    values
        The number for each amplifier's name.

    Returns
    -------
    image
        Shape ``(ny, nx)``.

    Raises
    ------
    NoCalibError
        If an amplifier has no number.
    HeaderError
        If the amplifiers do not tile the detector.
    """
    image = np.empty(detector_shape(amplifiers), dtype=np.float32)
    for amplifier in amplifiers:
        image[amplifier.detector] = _lookup(values, amplifier.name)
    return image


def process_raw(
    amplifiers: Sequence[Amplifier],
    *,
    bias: NDArray[np.float32],
    dark: NDArray[np.float32],
    flat: NDArray[np.float32],
    defects: NDArray[np.bool_],
    gains: Mapping[str, float],
    read_noises: Mapping[str, float],
    exposure_time: float,
    saturation: float,
) -> MaskedImage:
    """Remove the instrument's signature from a raw.

    ``image = ((raw - overscan - bias) gain - dark time) / flat``, and the variance is that of the electrons
    collected, dark current and sky included, plus the read noise, divided by ``flat**2``. Defects and pixels
    without data get the level of their surroundings.

    Parameters
    ----------
    amplifiers
        Every amplifier of one detector.
    bias
        Combined bias [adu], shape ``(ny, nx)``.
    dark
        Dark current [electron/s], shape ``(ny, nx)``.
    flat
        Relative response, about 1, shape ``(ny, nx)``.
    defects
        True on defects, shape ``(ny, nx)``.
    gains
        Gain of each amplifier [electron/adu].
    read_noises
        Read noise of each amplifier [electron].
    exposure_time
        Time over which dark current was collected [s].
    saturation
        Level above the overscan at which a pixel is saturated [adu].

    Returns
    -------
    masked
        The image [electron], finite everywhere, with the planes BAD, SAT, SUSPECT, EDGE, NO_DATA and INTRP.

    Raises
    ------
    HeaderError
        If the amplifiers do not tile the detector.
    NoCalibError
        If a calib has another shape than the raw or no value for an amplifier.
    RawError
        If hardly any pixel is usable; the message says why.
    """
    shape = detector_shape(amplifiers)
    for label, calib in (("bias", bias), ("dark", dark), ("flat", flat), ("defects", defects)):
        if calib.shape != shape:
            raise NoCalibError(f"the {label} has shape {calib.shape} (y, x), the raw {shape}")
    if not (np.isfinite(exposure_time) and exposure_time >= 0):
        raise HeaderError(f"the dark time is {exposure_time} s")
    masked = MaskedImage(
        np.empty(shape, np.float32), np.empty(shape, np.float32), np.zeros(shape, MASK_DTYPE)
    )
    for amplifier in amplifiers:
        section = amplifier.detector
        pixels = amplifier.pixels[amplifier.data]
        level = overscan_level(amplifier)
        if not np.isfinite(level).any() or _is_dead(pixels):
            level[:] = np.nan
        _correct(
            orient(amplifier, pixels),
            level[::-1] if amplifier.flip_y else level,
            bias[section],
            dark[section],
            flat[section],
            defects[section],
            _lookup(gains, amplifier.name),
            _lookup(read_noises, amplifier.name),
            float(exposure_time),
            float(saturation),
            masked.image[section],
            masked.variance[section],
            masked.mask[section],
        )
    _grow_saturation(masked.mask, SATURATION_GROWTH)
    _mark_edge(masked.mask)
    _check_usable(masked, amplifiers, saturation)
    wrong = (masked.mask & np.uint16(MaskPlane.BAD | MaskPlane.NO_DATA)) != 0
    fill_pixels(masked, wrong, (masked.mask & np.uint16(UNUSABLE & ~MaskPlane.EDGE)) == 0)
    return masked


def _lookup(values: Mapping[str, float], name: str) -> float:
    value = values.get(name)
    if value is None or not np.isfinite(value) or value <= 0:
        raise NoCalibError(f"no gain or read noise for amplifier {name}: {value}")
    return float(value)


def _is_dead(pixels: NDArray[np.int32]) -> bool:
    """Tell whether an amplifier gives one and the same number everywhere."""
    return bool(np.all(pixels == pixels.flat[0]))


@numba.njit(cache=True, nogil=True)
def _correct(
    pixels: NDArray[np.int32],
    level: NDArray[np.float64],
    bias: NDArray[np.float32],
    dark: NDArray[np.float32],
    flat: NDArray[np.float32],
    defects: NDArray[np.bool_],
    gain: float,
    read_noise: float,
    time: float,
    saturation: float,
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    mask: NDArray[np.uint16],
) -> None:
    """Correct one amplifier in one pass over its pixels; writes into image, variance and mask."""
    ny, nx = pixels.shape
    for y in range(ny):
        for x in range(nx):
            raw = float(pixels[y, x])
            bits = 0
            response = float(flat[y, x])
            if defects[y, x] or not response > _MIN_FLAT:
                bits |= MaskPlane.BAD.value
            if not response > _MIN_FLAT:
                response = 1.0
            collected = (raw - level[y] - bias[y, x]) * gain
            value = (collected - dark[y, x] * time) / response
            if np.isfinite(value):
                image[y, x] = value
                variance[y, x] = (max(collected, 0.0) + read_noise**2) / response**2
            else:
                image[y, x] = 0.0
                variance[y, x] = read_noise**2
                bits |= MaskPlane.NO_DATA.value
            signal = raw - level[y]
            if signal >= saturation:
                bits |= MaskPlane.SAT.value
            if signal >= SUSPECT_FRACTION * saturation:
                bits |= MaskPlane.SUSPECT.value
            mask[y, x] = bits


@numba.njit(cache=True, nogil=True)
def _grow_saturation(mask: NDArray[np.uint16], growth: int) -> None:
    """Mark as SAT the pixels within ``growth`` of one that is marked, in place."""
    ny, nx = mask.shape
    saturated = np.uint16(MaskPlane.SAT.value)
    seeds = (mask & saturated) != 0
    for y in range(ny):
        for x in range(nx):
            if seeds[y, x]:
                for yy in range(max(0, y - growth), min(ny, y + growth + 1)):
                    for xx in range(max(0, x - growth), min(nx, x + growth + 1)):
                        mask[yy, xx] |= saturated


def _mark_edge(mask: NDArray[np.uint16]) -> None:
    edge = np.uint16(MaskPlane.EDGE)
    mask[:EDGE_WIDTH] |= edge
    mask[-EDGE_WIDTH:] |= edge
    mask[:, :EDGE_WIDTH] |= edge
    mask[:, -EDGE_WIDTH:] |= edge


def _check_usable(masked: MaskedImage, amplifiers: Sequence[Amplifier], saturation: float) -> None:
    """Refuse an image without usable pixels, and say which plane is to blame and where."""
    unusable = (masked.mask & np.uint16(MaskPlane.BAD | MaskPlane.SAT | MaskPlane.NO_DATA)) != 0
    if unusable.mean() <= 1 - _MIN_USABLE_FRACTION:
        return
    parts = {
        plane: float(((masked.mask & np.uint16(plane)) != 0).mean())
        for plane in (MaskPlane.SAT, MaskPlane.NO_DATA, MaskPlane.BAD)
    }
    blamed = max(parts, key=lambda plane: parts[plane])
    reason = {
        MaskPlane.SAT: f"saturated (>= {saturation:g} adu above the overscan)",
        MaskPlane.NO_DATA: "NaN, or one number all over an amplifier",
        MaskPlane.BAD: "defects or without response in the flat",
    }[blamed]
    where = [a.name for a in amplifiers if ((masked.mask[a.detector] & np.uint16(blamed)) != 0).mean() > 0.5]
    raise RawError(f"{100 * parts[blamed]:.1f} % of the pixels are {reason}; amplifiers {', '.join(where)}")
