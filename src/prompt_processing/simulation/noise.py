"""How well the flux of a point can be measured in one visit: the definition of S/N in the truth."""

from collections.abc import Sequence
from typing import Final

import galsim
import numpy as np
from numpy.typing import NDArray

from prompt_processing.simulation.detector import DARK_CURRENT, Electronics, vignetting
from prompt_processing.simulation.optics import to_pixels
from prompt_processing.simulation.render import Points, StaticSky, draw_points, empty_image

_BRIGHT: Final = 1e6


class NoiseModel:
    """Ideal PSF photometry on the difference of a visit and the mean of the template epochs.

    With the true PSF ``P`` (sum 1) the variance of the flux is ``1 / sum(P**2 / V)`` (Horne 1986, PASP 98,
    609, without the noise of the source itself). ``V`` is the variance of a pixel: sky, host light, dark
    current and read noise of the visit, and the same of the template epochs, scaled to the visit and averaged
    with inverse variances.

    Parameters
    ----------
    visit : `~prompt_processing.simulation.render.StaticSky`
        The science visit.
    templates : `~collections.abc.Sequence` [`~prompt_processing.simulation.render.StaticSky`]
        The template epochs.
    electronics : `~prompt_processing.simulation.detector.Electronics`
        Properties of the amplifiers.
    """

    def __init__(self, visit: StaticSky, templates: Sequence[StaticSky], electronics: Electronics) -> None:
        self._visit = visit
        self._templates = templates
        self._electronics = electronics

    def flux_error(self, source: Points) -> float:
        """Return the standard deviation of the flux [nJy] of a source in this visit.

        Parameters
        ----------
        source : `~prompt_processing.simulation.render.Points`
            Where the light of the source falls: one point, or the points of a trail. Its brightness does not
            matter, only how it is shared between the points.

        Returns
        -------
        error : `float`
            Standard deviation of the flux [nJy].

        Raises
        ------
        ValueError
            If no template epoch covers the place.
        """
        frame = self._visit.frame
        x, y = float(source.x.mean()), float(source.y.mean())
        length = np.hypot(np.ptp(source.x), np.ptp(source.y))
        half = int(np.ceil(2.5 * float(frame.aim.psf.fwhm[0]) + length / 2))
        stamp = empty_image(x, y, half)
        share = source.electrons / source.electrons.sum()
        # A stamp's size depends on its flux: draw a bright source and scale it down.
        draw_points(stamp, frame.aim.psf, Points(source.x, source.y, _BRIGHT * share))
        profile = stamp.array.astype(np.float64) / _BRIGHT
        variance = self._variance(self._visit, x, y, half)
        weight = np.zeros_like(variance)
        ra, dec = self._visit.wcs.all_pix2world(x, y, 0)
        for template in self._templates:
            tx, ty = (float(value[0]) for value in to_pixels(template.wcs, ra, dec))
            ny, nx = template.frame.shape
            if 0 <= tx < nx and 0 <= ty < ny:
                scale = frame.electron_per_njy / template.frame.electron_per_njy
                weight += 1.0 / (scale**2 * self._variance(template, tx, ty, half))
        if not weight.all():
            raise ValueError(f"no template epoch covers ra {float(ra):.5f}, dec {float(dec):.5f} deg")
        variance += 1.0 / weight
        return float(1.0 / np.sqrt((profile**2 / variance).sum()) / frame.electron_per_njy)

    def _variance(self, static: StaticSky, x: float, y: float, half: int) -> NDArray[np.float64]:
        """Return the variance of the pixels around a position, after division by the flat [electron**2]."""
        frame, electronics = static.frame, self._electronics
        host: galsim.ImageF = empty_image(x, y, half)
        static.draw(host)
        light = float(frame.sky_at(x, y)) + host.array.astype(np.float64)
        response = float(vignetting(electronics.layout, x, y))
        read_noise = float(electronics.read_noises[electronics.amplifier_at(x, y)])
        return (light * response + DARK_CURRENT * frame.dark_time + read_noise**2) / response**2
