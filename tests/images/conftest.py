"""Synthetic images with known answers, from numpy alone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage

BETA = 3.5


@dataclass
class Scene:
    """A sky-subtracted image in electrons and the truth about it."""

    masked: MaskedImage
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    galaxy_x: NDArray[np.float64]
    galaxy_y: NDArray[np.float64]
    fwhm: float
    sky: float
    read_noise: float
    varying: bool = True

    def psf(
        self, x: float, y: float, half: int = 25, dx: float = 0.0, dy: float = 0.0
    ) -> NDArray[np.float64]:
        """True PSF at (x, y) around the centre of a stamp, offset by (dx, dy)."""
        grid = np.arange(-half, half + 1, dtype=np.float64)
        return moffat(
            grid - dx, grid[:, None] - dy, *shape_at(x, y, self.masked.shape, self.fwhm, self.varying)
        )


def shape_at(x, y, shape, fwhm, varying=True):
    """FWHM, e1 and e2 of the PSF: varying by +-5 % and +-0.04 over the image, or as in its centre."""
    if not varying:
        return fwhm, 0.02, -0.015
    u, v = 2 * x / shape[1] - 1, 2 * y / shape[0] - 1
    return fwhm * (1 + 0.03 * u - 0.02 * v + 0.02 * u * u), 0.02 + 0.02 * u * v, -0.015 + 0.02 * v


def moffat(dx, dy, fwhm, e1, e2, beta=BETA):
    """Elliptical Moffat profile of total flux 1 (per pixel)."""
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))
    r2 = (1 - 2 * e1) * dx**2 + (1 + 2 * e1) * dy**2 - 4 * e2 * dx * dy
    norm = (beta - 1) / (np.pi * alpha**2) * np.sqrt(max((1 - 4 * e1**2) - 4 * e2**2, 0.1))
    return norm * (1 + r2 / alpha**2) ** -beta


def add_source(image, x, y, flux, profile, radius):
    """Add ``flux * profile(dx, dy)`` within a radius, in place."""
    ny, nx = image.shape
    x0, x1 = max(0, int(x) - radius), min(nx, int(x) + radius + 2)
    y0, y1 = max(0, int(y) - radius), min(ny, int(y) + radius + 2)
    if x0 < x1 and y0 < y1:
        image[y0:y1, x0:x1] += flux * profile(np.arange(x0, x1) - x, np.arange(y0, y1)[:, None] - y)


def power_law(rng, n, low, high, slope=-1.55):
    """Fluxes with N(F) ~ F**slope between two limits."""
    k = slope + 1
    return (low**k + rng.random(n) * (high**k - low**k)) ** (1 / k)


def build_scene(
    shape=(600, 700), *, n_stars=60, n_galaxies=8, fwhm=9.0, sky=1000.0, read_noise=9.0, seed=1, low=3e3,
    high=1e6, positions=None, fluxes=None, varying=True,
) -> Scene:  # fmt: skip
    """Draw stars and exponential galaxies on a flat sky, add noise, subtract the sky."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    x, y = (
        (rng.uniform(0, nx - 1, n_stars), rng.uniform(0, ny - 1, n_stars)) if positions is None else positions
    )
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    flux = power_law(rng, x.size, low, high) if fluxes is None else np.asarray(fluxes, float)
    image = np.full(shape, sky, dtype=np.float64)
    for xs, ys, f in zip(x, y, flux, strict=True):
        radius = int(np.clip(12 * (f / 10) ** (1 / (2 * BETA)), 40, 250))
        pars = shape_at(xs, ys, shape, fwhm, varying)
        add_source(image, xs, ys, f, lambda dx, dy, pars=pars: moffat(dx, dy, *pars), radius)
    gx, gy = rng.uniform(30, nx - 30, n_galaxies), rng.uniform(30, ny - 30, n_galaxies)
    for xs, ys, f in zip(gx, gy, power_law(rng, n_galaxies, 2e4, 3e5), strict=True):
        # A galaxy seen through this PSF, near enough: a wider, elongated Moffat.
        pars = (fwhm * rng.uniform(1.3, 2.2), *rng.uniform(-0.2, 0.2, 2))
        add_source(image, xs, ys, f, lambda dx, dy, pars=pars: moffat(dx, dy, *pars), 120)
    image = rng.poisson(image) + rng.normal(0, read_noise, shape)
    variance = np.maximum(image, 0) + read_noise**2
    masked = MaskedImage(image - sky, variance, np.zeros(shape, np.uint16))
    return Scene(masked, x, y, flux, gx, gy, fwhm, sky, read_noise, varying)


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Scene]:
    """Return the builder of synthetic scenes."""
    return build_scene
