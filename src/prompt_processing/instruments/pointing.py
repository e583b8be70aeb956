"""Where a detector should be on the sky, from the boresight and rotation that a header or an event tells.

The orientation is decided here and nowhere else; ``docs/reference/latiss.md`` tells why. Astrometry starts
from this WCS and must find the real one, whatever the rotation and parity.
"""

import math

import numpy as np
from astropy.wcs import WCS


def predicted_wcs(ra: float, dec: float, rotation: float, shape: tuple[int, int], pixel_scale: float) -> WCS:
    """Return the WCS that a header predicts.

    The boresight is at the centre of the image, and the position angle of +y is ``rotation`` + 180 deg, with
    the ordinary parity of the sky (east is left when north is up)::

        CD = s [[cos R, -sin R], [-sin R, -cos R]]

    Parameters
    ----------
    ra, dec
        Boresight, ICRS [deg].
    rotation
        ``ROTPA`` [deg].
    shape
        Shape ``(ny, nx)`` of the detector.
    pixel_scale
        Pixel scale [arcsec].

    Returns
    -------
    wcs
        TAN, to be called with origin 0.
    """
    ny, nx = shape
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    wcs.wcs.cd = pixel_scale / 3600.0 * np.array([[cosine, -sine], [-sine, -cosine]])
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.set()
    wcs.pixel_shape = (nx, ny)
    return wcs


def recentred(plane: WCS, shape: tuple[int, int]) -> WCS:
    """Return a WCS around the centre of an image that agrees there with one around another place.

    Parameters
    ----------
    plane
        TAN whose origin may be far outside of the image.
    shape
        Shape ``(ny, nx)`` of the image.

    Returns
    -------
    wcs
        TAN with the same position, scale and orientation at the centre of the image.
    """
    ny, nx = shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    wcs = plane.deepcopy()
    wcs.wcs.crval = plane.wcs_pix2world([[x, y]], 0)[0]
    wcs.wcs.crpix = [x + 1, y + 1]
    # In its own plane the centre is the origin, and a step of a pixel is a column of the matrix.
    wcs.wcs.cd = np.eye(2)
    wcs.wcs.set()
    steps = plane.wcs_pix2world([[x + 1, y], [x, y + 1]], 0)
    wcs.wcs.cd = (wcs.wcs_world2pix(steps, 0) - [x, y]).T
    wcs.wcs.set()
    return wcs
