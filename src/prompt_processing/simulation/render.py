"""Drawing the sky onto a detector with GalSim."""

from dataclasses import dataclass
from typing import Final

import galsim
import numpy as np
from numpy.typing import NDArray

from prompt_processing.simulation.frames import Frame
from prompt_processing.simulation.optics import PsfField, moffat, moffat_core, moffat_radius, to_pixels
from prompt_processing.simulation.sky import Galaxies, Scene

_FAINTEST: Final = 0.05
"""Level at which the wing of a star is cut off [electron per pixel]."""
_ACCURACY: Final = galsim.GSParams(folding_threshold=0.02, maxk_threshold=0.01)
"""Three times as fast as GalSim's default; galaxies differ by less than 0.1 electron."""


@dataclass(frozen=True, slots=True)
class Points:
    """Points of light on the detector of one exposure; arrays of one length."""

    x: NDArray[np.float64]
    """0-based pixel position."""
    y: NDArray[np.float64]
    electrons: NDArray[np.float64]
    """Negative where a star has become fainter."""

    @staticmethod
    def join(*parts: "Points") -> "Points":
        """Return all points of several sets.

        Parameters
        ----------
        *parts
            The sets.

        Returns
        -------
        points
            All points, in the order of the sets.
        """
        return Points(
            np.concatenate([part.x for part in parts]),
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.electrons for part in parts]),
        )


def empty_image(x: float, y: float, half: int) -> galsim.ImageF:
    """Return an empty stamp around the pixel nearest to a position.

    Parameters
    ----------
    x, y
        0-based pixel position of the centre.
    half
        Pixels on each side of the middle pixel.

    Returns
    -------
    stamp
        Zeros, shape ``(2 half + 1, 2 half + 1)``, with pixels of the detector as bounds.
    """
    column, row = round(x), round(y)
    image = galsim.ImageF(galsim.BoundsI(column - half, column + half, row - half, row + half))
    image.scale = 1.0
    return image


def draw_points(image: galsim.ImageF, psf: PsfField, points: Points) -> None:
    """Add points of light to an image.

    Parameters
    ----------
    image
        Image [electron] with 0-based pixels of the detector as bounds; changed in place.
    psf
        PSF of the exposure.
    points
        Positions [px] and brightness [electron].
    """
    fwhm, e1, e2 = psf.parameters(points.x, points.y)
    radius = np.maximum(moffat_radius(points.electrons, fwhm, _FAINTEST), 2 * fwhm)
    for index in np.flatnonzero(_reaches(image, points.x, points.y, radius)):
        x, y = float(points.x[index]), float(points.y[index])
        stamp = _part(image, x, y, float(radius[index]))
        shape = float(fwhm[index]), float(e1[index]), float(e2[index])
        profile = moffat(*shape, float(points.electrons[index]))
        profile.drawImage(stamp, method="no_pixel", center=galsim.PositionD(x, y), add_to_image=True)


class StaticSky:
    """The scene as one exposure sees it: what can be drawn onto all of its detector or onto any stamp.

    Parameters
    ----------
    frame : `~prompt_processing.simulation.frames.Frame`
        The exposure.
    scene : `~prompt_processing.simulation.sky.Scene`
        Stars and galaxies.
    """

    def __init__(self, frame: Frame, scene: Scene) -> None:
        self.frame = frame
        self.wcs = frame.wcs
        ra, dec = scene.stars.positions(frame.begin.jyear)
        self.stars = Points(*to_pixels(self.wcs, ra, dec), scene.stars.flux * frame.electron_per_njy)
        self.galaxies = scene.galaxies
        self.galaxy_x, self.galaxy_y = to_pixels(self.wcs, scene.galaxies.ra, scene.galaxies.dec)
        # Arcsec (east, north) to pixels.
        self._to_pixels = np.linalg.inv(self.wcs.wcs.cd * 3600.0)
        scale = np.sqrt(abs(np.linalg.det(self._to_pixels)))
        self._galaxy_radius = 6 * scene.galaxies.radius * scale + 25
        self._galaxy_stamps: dict[int, galsim.ImageF] = {}

    def draw(self, image: galsim.ImageF) -> None:
        """Add stars and galaxies to an image.

        Parameters
        ----------
        image
            Image [electron] with 0-based pixels of the detector as bounds; changed in place.
        """
        draw_points(image, self.frame.aim.psf, self.stars)
        for index in np.flatnonzero(_reaches(image, self.galaxy_x, self.galaxy_y, self._galaxy_radius)):
            stamp = self._galaxy_stamp(int(index))
            shared = stamp.bounds & image.bounds
            if shared.isDefined():
                image[shared] += stamp[shared]

    def _galaxy_stamp(self, index: int) -> galsim.ImageF:
        """Return the image of one galaxy; many stamps of the sky may need it, and it is slow to draw."""
        if index not in self._galaxy_stamps:
            x, y = float(self.galaxy_x[index]), float(self.galaxy_y[index])
            light = _galaxy(self.galaxies, index, self.frame.electron_per_njy, self._to_pixels)
            profile = galsim.Convolve(light, self.frame.aim.psf.profile(x, y), gsparams=_ACCURACY)
            stamp = empty_image(x, y, int(self._galaxy_radius[index]))
            profile.drawImage(stamp, method="no_pixel", center=galsim.PositionD(x, y))
            self._galaxy_stamps[index] = stamp
        return self._galaxy_stamps[index]


def expected_light(static: StaticSky, changes: Points) -> NDArray[np.float32]:
    """Return what falls on the detector in one exposure, without noise.

    Parameters
    ----------
    static : `StaticSky`
        The scene in that exposure.
    changes : `Points`
        What is not part of the scene: transients, moving objects, changes of variable stars.

    Returns
    -------
    light : `numpy.ndarray`
        Electrons of each pixel for a response of 1, shape ``(ny, nx)``.
    """
    frame = static.frame
    ny, nx = frame.shape
    y, x = np.ogrid[0:ny, 0:nx]
    light = frame.sky_at(x, y).astype(np.float32)
    image = galsim.ImageF(light, xmin=0, ymin=0, scale=1.0)
    static.draw(image)
    draw_points(image, frame.aim.psf, changes)
    _draw_streak(light, frame)
    return np.maximum(light, 0.0)


def _galaxy(
    galaxies: Galaxies, index: int, electron_per_njy: float, matrix: NDArray[np.float64]
) -> galsim.GSObject:
    """Return one galaxy before the PSF, in pixels."""
    light = galsim.Sersic(float(galaxies.index[index]), half_light_radius=float(galaxies.radius[index]))
    light = light.shear(g1=float(galaxies.g1[index]), g2=float(galaxies.g2[index]))
    return light.transform(*matrix.ravel()).withFlux(float(galaxies.flux[index]) * electron_per_njy)


def _draw_streak(light: NDArray[np.float32], frame: Frame) -> None:
    """Add the trail of a satellite: a straight line as wide as the PSF."""
    streak = frame.streak
    if streak is None:
        return
    ny, nx = light.shape
    dx, dy = streak.x_end - streak.x_begin, streak.y_end - streak.y_begin
    length = np.hypot(dx, dy)
    y, x = np.ogrid[0:ny, 0:nx]
    distance = ((y - streak.y_begin) * dx - (x - streak.x_begin) * dy) / length
    core = moffat_core(float(frame.aim.psf.fwhm[0]))
    # A row of Moffat profiles of index beta adds up to a ridge of index beta - 1/2.
    light += (streak.peak * (1 + (distance / core) ** 2) ** -3.0).astype(np.float32)


def _reaches(
    image: galsim.ImageF, x: NDArray[np.float64], y: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.bool_]:
    bounds = image.bounds
    inside_x = (x + radius >= bounds.xmin) & (x - radius <= bounds.xmax)
    return inside_x & (y + radius >= bounds.ymin) & (y - radius <= bounds.ymax)


def _part(image: galsim.ImageF, x: float, y: float, radius: float) -> galsim.ImageF:
    """Return the part of an image within a square around a position, or all of it where it is smaller."""
    around = galsim.BoundsI(
        int(np.floor(x - radius)),
        int(np.ceil(x + radius)),
        int(np.floor(y - radius)),
        int(np.ceil(y + radius)),
    )
    return image[around & image.bounds]
