"""Regions of the sky that detectors and visits cover."""

import math
from typing import Final

import numpy as np
from astropy.wcs import WCS
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from prompt_processing.domain.errors import HeaderError
from prompt_processing.instruments.camera import Camera
from prompt_processing.instruments.pointing import predicted_wcs

DEFAULT_PADDING: Final = 60.0
"""Margin around a detector for errors of the pointing [arcsec]."""


def detector_region(wcs: WCS, shape: tuple[int, int], padding: float = DEFAULT_PADDING) -> ConvexPolygon:
    """Return the region of the sky that an image covers, with a margin.

    Parameters
    ----------
    wcs
        WCS of the image, origin 0; distortion is ignored.
    shape
        Shape ``(ny, nx)`` of the image.
    padding
        Margin on every side [arcsec].

    Raises
    ------
    HeaderError
        If the corners do not make a convex polygon on the sky, because the WCS makes no sense.
    """
    ny, nx = shape
    scale = math.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600.0
    margin = 0.5 + padding / scale
    x = np.array([-margin, nx - 1 + margin, nx - 1 + margin, -margin])
    y = np.array([-margin, -margin, ny - 1 + margin, ny - 1 + margin])
    return sky_polygon(*wcs.wcs_pix2world(x, y, 0))


def sky_polygon(ra: np.ndarray, dec: np.ndarray) -> ConvexPolygon:
    """Return the convex polygon with the given corners.

    Parameters
    ----------
    ra, dec
        Corners in either direction of rotation, ICRS [deg].

    Raises
    ------
    HeaderError
        If a corner is not a position on the sky, or they do not make a convex polygon.
    """
    if not (np.isfinite(ra).all() and np.isfinite(dec).all()):
        raise HeaderError(f"corners of the detector are not on the sky: ra {ra}, dec {dec}")
    corners = [
        UnitVector3d(LonLat.fromDegrees(float(lon), float(lat))) for lon, lat in zip(ra, dec, strict=True)
    ]
    try:
        return ConvexPolygon(corners)
    except (ValueError, RuntimeError) as error:
        raise HeaderError(f"no convex region on the sky: ra {ra}, dec {dec}") from error


def visit_region(camera: Camera, ra: float, dec: float, rotation: float, padding: float) -> ConvexPolygon:
    """Return the region around all detectors, the same whichever detector of a visit is looked at.

    Parameters
    ----------
    camera
        The camera.
    ra, dec
        Boresight, ICRS [deg].
    rotation
        ``ROTPA`` [deg].
    padding
        Margin on every side [arcsec].
    """
    half = max(max(camera.detector_shape(detector)) for detector in camera.detectors) / 2
    margin = half + padding / camera.pixel_scale
    centres = np.array([camera.offset(detector) for detector in camera.detectors])
    sides = np.array([(x, y) for x in (-margin, margin) for y in (-margin, margin)])
    corners = (centres[:, None] + sides).reshape(-1, 2)
    # The pixels of a detector of one pixel at the boresight, continued over the focal plane.
    plane = predicted_wcs(ra, dec, rotation, (1, 1), camera.pixel_scale)
    sky = plane.wcs_pix2world(corners, 0)
    return ConvexPolygon.convexHull([UnitVector3d(LonLat.fromDegrees(*place)) for place in sky.tolist()])
