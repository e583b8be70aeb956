"""Where a visit will look, before its image is there."""

import math

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from lsst.sphgeom import ConvexPolygon

from prompt_processing.instruments.regions import sky_polygon

_CORNERS = 16


def field_region(
    ra: float, dec: float, shape: tuple[int, int], pixel_scale: float, padding: float
) -> ConvexPolygon:
    """Return a polygon around everything that a detector centred on a position can see, whatever its angle.

    The circle through the detector's corners is used instead of the rotated rectangle, because the camera's
    angle is not trusted: astrometry matches any rotation and either parity.

    Parameters
    ----------
    ra, dec
        Predicted boresight, ICRS [deg].
    shape
        Shape ``(ny, nx)`` of the detector [pixel].
    pixel_scale
        Pixel scale [arcsec].
    padding
        Margin for errors of the pointing and for neighbours [arcsec].
    """
    radius = (math.hypot(*shape) / 2 * pixel_scale + padding) / 3600
    # A regular polygon contains the circle when its corners are a little outside.
    outer = radius / math.cos(math.pi / _CORNERS)
    angles = np.arange(_CORNERS) * 360 / _CORNERS
    corners = SkyCoord(ra, dec, unit="deg").directional_offset_by(angles * u.deg, outer * u.deg)
    return sky_polygon(corners.ra.deg, corners.dec.deg)
