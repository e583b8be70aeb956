"""Mask planes of every image, as bits of an unsigned 16-bit integer."""

from enum import IntFlag
from typing import Final

import numpy as np

MASK_DTYPE: Final = np.dtype(np.uint16)


class MaskPlane(IntFlag):
    """One bit per reason why a pixel is special; names are Rubin's.

    The names and bits are written into the header of every stored image (``MP_<NAME>`` cards), so that a
    reader needs no knowledge of this module.
    """

    BAD = 1 << 0
    """A defect of the detector."""
    SAT = 1 << 1
    """Saturated, or reached by the bleed trail of a saturated star."""
    INTRP = 1 << 2
    """The value was interpolated from neighbours."""
    CR = 1 << 3
    """A cosmic ray."""
    EDGE = 1 << 4
    """Too near to the edge of the data to be trusted."""
    DETECTED = 1 << 5
    """Part of a positive detection."""
    DETECTED_NEGATIVE = 1 << 6
    """Part of a negative detection."""
    NO_DATA = 1 << 7
    """No data at all: outside the template's coverage, or a dead amplifier."""
    SUSPECT = 1 << 8
    """The value is in doubt: near the full well, or where the kernel is poorly constrained."""
    STREAK = 1 << 9
    """The trail of a satellite or an aircraft."""
    SAT_TEMPLATE = 1 << 10
    """Saturated in the template."""


UNUSABLE: Final = MaskPlane.BAD | MaskPlane.SAT | MaskPlane.CR | MaskPlane.EDGE | MaskPlane.NO_DATA
"""Planes that keep a pixel out of fits and statistics."""
