"""The detector and its electronics: from light on the pixels to numbers in a raw."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from prompt_processing.simulation.camera import ADC_MAXIMUM, CameraLayout
from prompt_processing.simulation.profiles import FULL_WELL, Profile, stream

DARK_CURRENT: Final = 0.02
"""Mean dark current of an ordinary pixel [electron/s]."""
VIGNETTING: Final = 0.12
"""Loss of light in the corners of the detector."""
_HOT_FRACTION: Final = 2e-4
_DRIFT: Final = 4.0
_RESPONSE_SCATTER: Final = 0.006
_BAD_COLUMN_RESPONSE: Final = 0.15
_BAD_COLUMN_CURRENT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Electronics:
    """Properties of the amplifiers and the list of the pixels that do not work as they should."""

    layout: CameraLayout
    gains: NDArray[np.float64]
    """Gain of each amplifier [electron/adu], in the order of the extensions, shape ``(16,)``."""
    read_noises: NDArray[np.float64]
    """Read noise of each amplifier [electron]."""
    bias_levels: NDArray[np.float64]
    """Bias level of each amplifier [adu]."""
    hot_pixels: Table
    """Columns ``x``, ``y`` [px] and ``rate`` [electron/s]."""
    bad_columns: Table
    """Columns ``x``, ``y_first``, ``y_last`` [px]: columns that answer to little of the light."""

    def amplifier_at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.intp]:
        """Return the index of the amplifier that reads each pixel position.

        Parameters
        ----------
        x, y
            0-based pixel positions, of shapes that broadcast.

        Returns
        -------
        index
            Index of the amplifier, 0 to 15, of the broadcast shape.
        """
        column = np.clip(np.rint(x).astype(np.intp) // self.layout.columns, 0, 7)
        return np.where(np.rint(y) < self.layout.rows, column, 15 - column)


def make_electronics(profile: Profile, seed: int) -> Electronics:
    """Return the electronics of a detector: gains, read noises, bias levels, hot pixels, bad columns.

    Parameters
    ----------
    profile
        Numbers of the night's size.
    seed
        Seed of the detector.

    Returns
    -------
    electronics
        Random, the same for the same profile and seed.
    """
    rng = stream(seed, "electronics")
    layout = profile.layout
    ny, nx = layout.shape
    n_hot = round(_HOT_FRACTION * ny * nx)
    hot = Table(
        {
            "x": rng.integers(0, nx, n_hot),
            "y": rng.integers(0, ny, n_hot),
            "rate": np.exp(rng.uniform(np.log(5.0), np.log(500.0), n_hot)),
        }
    )
    # A blocked column loses all pixels that are read through the blocked place.
    columns = np.sort(rng.choice(np.arange(8, nx - 8), profile.bad_columns, replace=False))
    top = rng.random(profile.bad_columns) < 0.5
    start = rng.integers(0, layout.rows // 2, profile.bad_columns)
    bad = Table(
        {
            "x": columns,
            "y_first": np.where(top, layout.rows, start),
            "y_last": np.where(top, ny - 1 - start, layout.rows - 1),
        }
    )
    return Electronics(
        layout=layout,
        gains=rng.uniform(1.047, 1.105, 16),
        read_noises=rng.uniform(8.0, 10.0, 16),
        bias_levels=rng.uniform(18_000.0, 26_000.0, 16),
        hot_pixels=hot,
        bad_columns=bad,
    )


def vignetting(layout: CameraLayout, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return the fraction of the light that reaches pixel positions; it falls quadratically from the centre.

    Parameters
    ----------
    layout
        Layout of the detector.
    x, y
        0-based pixel positions, of shapes that broadcast.

    Returns
    -------
    fraction
        1 at the centre, ``1 - VIGNETTING`` at the corners.
    """
    ny, nx = layout.shape
    u, v = np.asarray(x) - (nx - 1) / 2, np.asarray(y) - (ny - 1) / 2
    return 1.0 - VIGNETTING * (u * u + v * v) / ((nx / 2) ** 2 + (ny / 2) ** 2)


@dataclass(frozen=True, slots=True)
class PixelMaps:
    """Properties of every pixel, arrays of the detector's shape ``(ny, nx)``."""

    response: NDArray[np.float32]
    """Part of the light that becomes charge, relative."""
    dark: NDArray[np.float32]
    """Dark current [electron/s]."""
    bias: NDArray[np.float32]
    """Fixed pattern on top of the bias level [adu]."""


def make_pixel_maps(electronics: Electronics, seed: int) -> PixelMaps:
    """Return response, dark current and bias structure of each pixel of a detector.

    Parameters
    ----------
    electronics
        Layout, hot pixels and bad columns of the detector.
    seed
        Seed of the detector.

    Returns
    -------
    maps
        Three images of shape ``(ny, nx)``.
    """
    rng = stream(seed, "pixels")
    layout = electronics.layout
    ny, nx = layout.shape
    y, x = np.ogrid[0:ny, 0:nx]
    response = vignetting(layout, x, y).astype(np.float32)
    response *= 1 + np.float32(_RESPONSE_SCATTER) * rng.standard_normal((ny, nx), dtype=np.float32)
    dark = np.full((ny, nx), DARK_CURRENT, dtype=np.float32)
    dark *= 1 + np.float32(0.2) * rng.standard_normal((ny, nx), dtype=np.float32)
    np.maximum(dark, 0, out=dark)
    hot = electronics.hot_pixels
    dark[hot["y"], hot["x"]] += np.asarray(hot["rate"], dtype=np.float32)
    for row in electronics.bad_columns:
        part = np.s_[row["y_first"] : row["y_last"] + 1, row["x"]]
        response[part] *= _BAD_COLUMN_RESPONSE
        dark[part] += _BAD_COLUMN_CURRENT
    bias = np.empty((ny, nx), dtype=np.float32)
    # Each amplifier settles over its first columns and has a pattern of columns of its own.
    settling = np.exp(-np.arange(layout.columns) / 20.0)
    for segment in layout.segments():
        pattern = rng.uniform(5.0, 15.0) * settling + rng.normal(0.0, 1.5, layout.columns)
        segment.in_read_order(bias)[:] = pattern
    return PixelMaps(response=response, dark=dark, bias=bias)


def collect(
    light: NDArray[np.float32] | None, dark_time: float, maps: PixelMaps, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the charge in every pixel at the end of an exposure.

    Parameters
    ----------
    light : `numpy.ndarray` or `None`
        Expected electrons of each pixel if the response were 1, shape ``(ny, nx)``; `None` in the dark.
    dark_time : `float`
        Time over which dark current collects [s].
    maps : `PixelMaps`
        Properties of the pixels.
    rng : `numpy.random.Generator`
        Source of the photon noise.

    Returns
    -------
    charge : `numpy.ndarray`
        Electrons, whole numbers, shape ``(ny, nx)``.
    """
    mean = maps.dark * np.float32(dark_time)
    if light is not None:
        mean += light * maps.response
    return rng.poisson(mean).astype(np.float32)


def bleed(charge: NDArray[np.float32]) -> None:
    """Spill the charge above the full well along the columns, half in each direction, in place.

    Charge that passes the first or the last row is lost.

    Parameters
    ----------
    charge
        Image of the detector [electron], shape ``(ny, nx)``; changed in place.
    """
    columns = np.flatnonzero((charge > FULL_WELL).any(axis=0))
    if columns.size == 0:
        return
    part = charge[:, columns].astype(np.float64)
    spilled = np.maximum(part - FULL_WELL, 0.0) / 2
    np.minimum(part, FULL_WELL, out=part)
    part = _spill(part, spilled)
    part = _spill(part[::-1], spilled[::-1])[::-1]
    charge[:, columns] = part


def _spill(part: NDArray[np.float64], spilled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Carry spilled charge towards higher rows until it finds room.

    The charge in motion follows ``carry[y] = max(0, carry[y-1] + spilled[y] - room[y])`` (Lindley's
    recursion), whose solution is a cumulative sum minus its running minimum.
    """
    room = FULL_WELL - part
    total = np.cumsum(spilled - room, axis=0)
    carry = total - np.minimum(np.minimum.accumulate(total, axis=0), 0.0)
    before = np.vstack([np.zeros((1, part.shape[1])), carry[:-1]])
    return part + before + spilled - carry


def read_out(
    charge: NDArray[np.float32] | None, electronics: Electronics, maps: PixelMaps, rng: np.random.Generator
) -> list[NDArray[np.int32]]:
    """Read the detector.

    Parameters
    ----------
    charge : `numpy.ndarray` or `None`
        Electrons of every pixel, shape ``(ny, nx)``; `None` if there is none (a bias frame).
    electronics : `Electronics`
        Properties of the amplifiers.
    maps : `PixelMaps`
        Properties of the pixels.
    rng : `numpy.random.Generator`
        Source of the read noise and of the drift of the bias level.

    Returns
    -------
    amplifiers : `list` [`numpy.ndarray`]
        Image of each amplifier with prescan and overscans [adu], int32.
    """
    layout = electronics.layout
    row = np.linspace(-1.0, 1.0, layout.raw_shape[0])
    amplifiers = []
    for index, segment in enumerate(layout.segments()):
        gain = electronics.gains[index]
        drift = rng.normal() * row + 0.4 * np.sin(np.pi * (2 * row + rng.uniform(0, 2)))
        level = electronics.bias_levels[index] + _DRIFT * drift
        image = rng.standard_normal(layout.raw_shape, dtype=np.float32)
        image *= np.float32(electronics.read_noises[index] / gain)
        image += level.astype(np.float32)[:, None]
        image[layout.data] += segment.in_read_order(maps.bias)
        if charge is not None:
            image[layout.data] += segment.in_read_order(charge) / np.float32(gain)
        np.rint(image, out=image)
        np.clip(image, 0, ADC_MAXIMUM, out=image)
        amplifiers.append(image.astype(np.int32))
    return amplifiers
