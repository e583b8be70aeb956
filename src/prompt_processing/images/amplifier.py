"""Amplifiers of a detector and how their pixels are put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prompt_processing.domain.errors import HeaderError


@dataclass(frozen=True, slots=True, eq=False)
class Amplifier:
    """One amplifier as it was read out, with its place on the detector."""

    name: str
    """Name of the amplifier, for example ``C10``."""
    pixels: NDArray[np.int32]
    """Raw pixels [adu], shape ``(ny_raw, nx_raw)``, in the order of readout. A raw of floating-point numbers
    may hold NaN: those pixels have no data."""
    data: tuple[slice, slice]
    """Rows and columns of ``pixels`` that saw light (DATASEC)."""
    overscan: tuple[slice, slice]
    """Rows and columns of the serial overscan; the same rows as ``data``."""
    detector: tuple[slice, slice]
    """Rows and columns of the detector that the data fill, ascending (DETSEC)."""
    flip_y: bool
    """Whether the rows run against the detector's y."""
    flip_x: bool
    """Whether the columns run against the detector's x."""


def _size(section: tuple[slice, slice]) -> tuple[int, int]:
    rows, columns = section
    return rows.stop - rows.start, columns.stop - columns.start


def _check_sections(amplifier: Amplifier) -> None:
    """Check that the sections of one amplifier fit its pixels and each other."""
    for label, section in (("DATASEC", amplifier.data), ("overscan", amplifier.overscan)):
        for part, length in zip(section, amplifier.pixels.shape, strict=True):
            if not 0 <= part.start < part.stop <= length:
                raise HeaderError(
                    f"amplifier {amplifier.name}: {label} {part.start}:{part.stop} does not fit "
                    f"{amplifier.pixels.shape[1]} x {amplifier.pixels.shape[0]} raw pixels"
                )
    if amplifier.data[0] != amplifier.overscan[0]:
        raise HeaderError(f"amplifier {amplifier.name}: the overscan has other rows than DATASEC")
    if _size(amplifier.data) != _size(amplifier.detector) or amplifier.detector[0].start < 0:
        raise HeaderError(
            f"amplifier {amplifier.name}: DATASEC has {_size(amplifier.data)} (y, x) pixels, "
            f"DETSEC {_size(amplifier.detector)}"
        )


def detector_shape(amplifiers: Sequence[Amplifier]) -> tuple[int, int]:
    """Return the shape of the detector that the amplifiers tile.

    Parameters
    ----------
    amplifiers
        Every amplifier of one detector.

    Returns
    -------
    shape
        ``(ny, nx)`` in pixels.

    Raises
    ------
    HeaderError
        If a section does not fit its pixels, or if the amplifiers overlap or leave a gap.
    """
    if not amplifiers:
        raise HeaderError("the raw has no amplifiers")
    for amplifier in amplifiers:
        _check_sections(amplifier)
    ny = max(amplifier.detector[0].stop for amplifier in amplifiers)
    nx = max(amplifier.detector[1].stop for amplifier in amplifiers)
    for i, one in enumerate(amplifiers):
        for other in amplifiers[i + 1 :]:
            if all(
                a.start < b.stop and b.start < a.stop
                for a, b in zip(one.detector, other.detector, strict=True)
            ):
                raise HeaderError(f"amplifiers {one.name} and {other.name} overlap on the detector (DETSEC)")
    # Rectangles that do not overlap and have the area of the whole fill it without a gap.
    covered = sum(int(np.prod(_size(amplifier.detector))) for amplifier in amplifiers)
    if covered != ny * nx:
        raise HeaderError(
            f"{len(amplifiers)} amplifiers cover {covered} pixels of a detector of {nx} x {ny} (DETSEC)"
        )
    return ny, nx


def orient[T: np.generic](amplifier: Amplifier, values: NDArray[T]) -> NDArray[T]:
    """Return trimmed pixels of an amplifier in the order of the detector.

    Parameters
    ----------
    amplifier
        The amplifier, for its flips.
    values
        Pixels of its data section in the order of readout, shape ``(ny, nx)``.

    Returns
    -------
    oriented
        A view of ``values`` with y and x ascending on the detector.
    """
    return values[:: -1 if amplifier.flip_y else 1, :: -1 if amplifier.flip_x else 1]


def assemble[T: np.generic](amplifiers: Sequence[Amplifier], values: Sequence[NDArray[T]]) -> NDArray[T]:
    """Put trimmed amplifiers together to the detector.

    Parameters
    ----------
    amplifiers
        Every amplifier of one detector.
    values
        For each amplifier its pixels of the data section in the order of readout, each of the shape of its
        ``detector`` section.

    Returns
    -------
    image
        Shape ``(ny, nx)``; pixel (0, 0) is DETSEC [1, 1].

    Raises
    ------
    HeaderError
        If the amplifiers do not tile the detector, or a value array has another shape than its section.
    """
    shape = detector_shape(amplifiers)
    image = np.empty(shape, dtype=values[0].dtype)
    for amplifier, value in zip(amplifiers, values, strict=True):
        if value.shape != _size(amplifier.detector):
            raise HeaderError(
                f"amplifier {amplifier.name}: {value.shape} pixels for {_size(amplifier.detector)}"
            )
        image[amplifier.detector] = orient(amplifier, value)
    return image
