"""What telescope and atmosphere do to a point of light: the true WCS and the true PSF."""

from dataclasses import dataclass
from typing import Final

import galsim
import numpy as np
from astropy.wcs import WCS, Sip
from numpy.typing import ArrayLike, NDArray

MOFFAT_BETA: Final = 3.5
DISTORTION: Final = 8e-4
"""Radial displacement at the corner of the detector relative to the distance from the centre."""
SCALE_ERROR: Final = 2e-4
"""How much larger the true pixel scale is than the nominal one, relative."""
_TERMS: Final = 6


def true_wcs(shape: tuple[int, int], ra: float, dec: float, rotation: float, pixel_scale: float) -> WCS:
    """Return the mapping between pixels and sky of one exposure.

    The linear part is ``CD = s [[cos R, -sin R], [-sin R, -cos R]]``: the detector is seen in ordinary sky
    parity with +y at position angle ``R + 180`` deg. The distortion is radial and cubic, the same for all
    exposures.

    Parameters
    ----------
    shape : `tuple` [`int`, `int`]
        Shape ``(ny, nx)`` of the detector.
    ra, dec : `float`
        ICRS position at the centre of the detector [deg].
    rotation : `float`
        True rotation R [deg].
    pixel_scale : `float`
        Nominal pixel scale [arcsec].

    Returns
    -------
    wcs : `astropy.wcs.WCS`
        TAN-SIP of order 3 without inverse coefficients; call it with origin 0.
    """
    ny, nx = shape
    scale = pixel_scale * (1.0 + SCALE_ERROR) / 3600.0
    cosine, sine = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    wcs.wcs.cd = scale * np.array([[cosine, -sine], [-sine, -cosine]])
    # r -> r (1 + k r**2) along both axes; k from the displacement at the corner.
    cubic = DISTORTION / ((nx / 2) ** 2 + (ny / 2) ** 2)
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[3, 0] = a[1, 2] = cubic
    b[0, 3] = b[2, 1] = cubic
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def to_pixels(wcs: WCS, ra: ArrayLike, dec: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 0-based pixel positions of points on the sky [deg], to 1e-6 px.

    Parameters
    ----------
    wcs
        The true WCS of an exposure.
    ra, dec
        ICRS positions [deg], scalars or shape ``(n,)``.

    Returns
    -------
    x, y
        0-based positions [px], shape ``(n,)``, to 1e-6 px.
    """
    x, y = wcs.all_world2pix(np.atleast_1d(ra), np.atleast_1d(dec), 0, tolerance=1e-6, maxiter=50)
    return np.asarray(x), np.asarray(y)


@dataclass(frozen=True, slots=True)
class PsfField:
    """An elliptical Moffat profile (beta 3.5) whose size and shape are quadratic in the position.

    The profile includes the pixel: the value of a pixel is the profile at its centre. Terms are
    ``1, u, v, u**2, u v, v**2`` with ``u = 2 x / nx - 1`` and ``v = 2 y / ny - 1``.
    """

    shape: tuple[int, int]
    """Shape ``(ny, nx)`` of the detector."""
    fwhm: NDArray[np.float64]
    """Six coefficients of the full width at half maximum [px]."""
    e1: NDArray[np.float64]
    """Six coefficients of the ellipticity ``(a**2 - b**2) / (a**2 + b**2)`` along x."""
    e2: NDArray[np.float64]
    """Six coefficients of the ellipticity along the diagonal."""

    @staticmethod
    def draw(
        rng: np.random.Generator, shape: tuple[int, int], *, fwhm: float, variation: float, ellipticity: float
    ) -> "PsfField":
        """Return a random field.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of randomness.
        shape : `tuple` [`int`, `int`]
            Shape ``(ny, nx)`` of the detector.
        fwhm : `float`
            Full width at half maximum at the centre [px].
        variation : `float`
            Largest relative deviation from it.
        ellipticity : `float`
            Largest modulus of the ellipticity.

        Returns
        -------
        field : `PsfField`
            The field.
        """
        v, u = np.mgrid[-1:1:21j, -1:1:21j]
        terms = _terms(u, v)
        size = np.concatenate([[0.0], rng.normal(size=_TERMS - 1)])
        size *= variation / np.abs(np.tensordot(size, terms, 1)).max()
        size[0] = 1.0
        e1, e2 = rng.normal(size=(2, _TERMS))
        modulus = np.hypot(np.tensordot(e1, terms, 1), np.tensordot(e2, terms, 1)).max()
        return PsfField(shape, fwhm * size, e1 * ellipticity / modulus, e2 * ellipticity / modulus)

    def parameters(
        self, x: ArrayLike, y: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return width and ellipticities at pixel positions.

        Parameters
        ----------
        x, y
            0-based pixel positions, of shapes that broadcast.

        Returns
        -------
        fwhm, e1, e2
            Full width at half maximum [px] and both ellipticities, of the broadcast shape.
        """
        ny, nx = self.shape
        terms = _terms(2 * np.asarray(x) / nx - 1, 2 * np.asarray(y) / ny - 1)
        return (
            np.tensordot(self.fwhm, terms, 1),
            np.tensordot(self.e1, terms, 1),
            np.tensordot(self.e2, terms, 1),
        )

    def profile(self, x: float, y: float, flux: float = 1.0) -> galsim.GSObject:
        """Return the GalSim profile at a pixel position.

        Parameters
        ----------
        x, y
            0-based pixel position.
        flux
            Total flux.

        Returns
        -------
        profile
            Profile in pixels; draw it with ``method="no_pixel"``.
        """
        fwhm, e1, e2 = self.parameters(x, y)
        return moffat(float(fwhm), float(e1), float(e2), flux)


def moffat(fwhm: float, e1: float, e2: float, flux: float) -> galsim.GSObject:
    """Return one elliptical Moffat profile with coordinates in pixels.

    Parameters
    ----------
    fwhm
        Full width at half maximum [px].
    e1, e2
        Ellipticity along x and along the diagonal.
    flux
        Total flux.

    Returns
    -------
    profile
        Profile with beta 3.5.
    """
    return galsim.Moffat(beta=MOFFAT_BETA, fwhm=fwhm, flux=flux).shear(e1=e1, e2=e2)


def moffat_core(fwhm: ArrayLike) -> NDArray[np.float64]:
    """Return the core radius alpha of ``(1 + r**2 / alpha**2)**-beta`` with a given width [px].

    Parameters
    ----------
    fwhm
        Full width at half maximum [px].

    Returns
    -------
    alpha
        Core radius [px], of the same shape.
    """
    return np.asarray(fwhm, dtype=np.float64) / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))


def moffat_peak(flux: ArrayLike, fwhm: ArrayLike) -> NDArray[np.float64]:
    """Return the central value per pixel of a round profile.

    Parameters
    ----------
    flux
        Total flux; the result has its unit per pixel.
    fwhm
        Full width at half maximum [px].

    Returns
    -------
    peak
        Modulus of the central value.
    """
    return np.abs(flux) * (MOFFAT_BETA - 1) / (np.pi * moffat_core(fwhm) ** 2)


def moffat_radius(flux: ArrayLike, fwhm: ArrayLike, level: float) -> NDArray[np.float64]:
    """Return the radius at which a round profile falls to a level.

    Parameters
    ----------
    flux
        Total flux.
    fwhm
        Full width at half maximum [px].
    level
        Value per pixel.

    Returns
    -------
    radius
        Radius [px]; 0 if the whole profile is below the level.
    """
    core = moffat_core(fwhm)
    peak = moffat_peak(flux, fwhm)
    return core * np.sqrt(np.maximum(np.maximum(peak / level, 1.0) ** (1 / MOFFAT_BETA) - 1, 0))


def _terms(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v])
