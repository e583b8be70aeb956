"""Pairs of images with known answers for the tests of differencing, from numpy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.psf import PsfModel

SCIENCE_SIGMA = 3.6
TEMPLATE_SIGMA = 3.0
SKY = 1000.0


def draw(shape, x, y, flux, sigma):
    """Gaussian stars; ``sigma`` is a number or one per star."""
    image = np.zeros(shape)
    for xs, ys, f, s in zip(x, y, flux, np.broadcast_to(sigma, np.shape(x)), strict=True):
        r = int(9 * s)
        x0, x1, y0, y1 = max(0, int(xs) - r), int(xs) + r + 1, max(0, int(ys) - r), int(ys) + r + 1
        rows, columns = np.arange(y0, min(y1, shape[0])), np.arange(x0, min(x1, shape[1]))
        if rows.size and columns.size:
            profile = np.exp(-0.5 * ((columns - xs) ** 2 + (rows[:, None] - ys) ** 2) / s**2)
            image[y0 : y0 + rows.size, x0 : x0 + columns.size] += f / (2 * np.pi * s**2) * profile
    return image


def gaussian_psf(shape, sigma, size=45) -> PsfModel:
    """The same Gaussian everywhere."""
    half = size // 2
    stamp = draw((size, size), [half], [half], [1.0], sigma)
    return PsfModel((stamp / stamp.sum())[None], 0, shape)


def noisy(truth, sky, rng) -> MaskedImage:
    """Poisson-like noise on top of a sky that is subtracted."""
    variance = sky + truth
    image = truth + rng.normal(size=truth.shape) * np.sqrt(variance)
    return MaskedImage(image, variance, np.zeros(truth.shape, np.uint16))


@dataclass
class Pair:
    """A science image and its template on one grid."""

    science: MaskedImage
    template: MaskedImage
    psf: PsfModel
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]


def make_pair(
    shape=(500, 512),
    *,
    seed=1,
    n_stars=60,
    scale=1.0,
    transients=(),
    sigma=SCIENCE_SIGMA,
    shift=0.0,
    noise=True,
) -> Pair:
    """Two epochs of one field; ``transients`` are (x, y, flux) of what is in the science image only."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    x, y = rng.uniform(-10, nx + 10, n_stars), rng.uniform(-10, ny + 10, n_stars)
    flux = 10 ** rng.uniform(4.3, 6.0, n_stars)
    truth = draw(shape, x, y, flux, sigma)
    if len(transients):
        tx, ty, tf = np.array(transients, dtype=float).T
        truth = truth + draw(shape, tx, ty, tf, sigma)
    template = draw(shape, x + shift, y, flux * scale, TEMPLATE_SIGMA)
    if noise:
        science_image, template_image = noisy(truth, SKY, rng), noisy(template, SKY / 5, rng)
    else:
        ones = np.ones(shape)
        science_image = MaskedImage(truth, ones, np.zeros(shape, np.uint16))
        template_image = MaskedImage(template, ones * 1e-3, np.zeros(shape, np.uint16))
    inside = (x > 0) & (x < nx) & (y > 0) & (y < ny)
    psf = gaussian_psf(shape, sigma)
    return Pair(science_image, template_image, psf, x[inside], y[inside], flux[inside])


def white(shape, sigma, sources=(), *, variance=100.0, seed=5):
    """A perfect difference image with point sources (x, y, flux), and its PSF."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=shape) * np.sqrt(variance)
    if len(sources):
        x, y, flux = np.array(sources, dtype=float).T
        image = image + draw(shape, x, y, flux, sigma)
    masked = MaskedImage(image, np.full(shape, variance), np.zeros(shape, np.uint16))
    return masked, gaussian_psf(shape, sigma)
