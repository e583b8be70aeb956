"""A coadd is a mean without what is in one epoch only."""

import numpy as np
import pytest

from prompt_processing.images.coadd import coadd
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MaskPlane

SHAPE = (300, 120)


def star(x, y, fwhm, flux):
    sigma = fwhm / 2.3548
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return flux / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((xs - x) ** 2 + (ys - y) ** 2) / sigma**2)


def epoch(seed, truth, sky=100.0):
    variance = sky + truth
    noise = np.random.default_rng(seed).normal(size=SHAPE) * np.sqrt(variance)
    return MaskedImage(truth + noise, variance, np.zeros(SHAPE, np.uint16))


def test_noise_falls_and_the_variance_tells_so():
    result = coadd(
        [epoch(seed, np.zeros(SHAPE), sky) for seed, sky in enumerate((100.0, 100.0, 400.0, 50.0))]
    )
    expected = 1 / (1 / 100 + 1 / 100 + 1 / 400 + 1 / 50)
    assert result.image.var() == pytest.approx(expected, rel=0.03)
    assert result.variance.mean() == pytest.approx(expected, rel=1e-3)


def test_what_is_in_one_epoch_only_is_left_out():
    epochs = [epoch(seed, np.zeros(SHAPE)) for seed in range(4)]
    epochs[1].image += star(60, 70, 7.5, 2e4)  # a transient, 50 sigma
    epochs[2].image[200:203, 30] += 5e3  # a cosmic ray that was missed
    epochs[3].image[255:258, :] += 150.0  # a trail, across the rows of two blocks
    result = coadd(epochs)
    assert abs(result.image[50:91, 40:81].sum()) < 0.04 * 2e4
    assert np.abs(result.image[200:203, 30]).max() < 30
    assert abs(result.image[255:258].mean()) < 3.0


@pytest.mark.parametrize("flux", [1e4, 1e6])
def test_stars_keep_their_flux_though_the_psf_differs(flux):
    truths = [star(60, 150, fwhm, flux) for fwhm in (7.0, 7.5, 8.5)]
    result = coadd([epoch(seed, truth) for seed, truth in enumerate(truths)])
    part = np.s_[135:166, 45:76]
    assert result.image[part].sum() == pytest.approx(np.mean(truths, axis=0)[part].sum(), rel=0.03)
    core = np.s_[148:153, 58:63]
    assert result.image[core].sum() == pytest.approx(np.mean(truths, axis=0)[core].sum(), rel=0.03)


def test_unusable_pixels_come_from_the_other_epochs():
    epochs = [epoch(seed, np.full(SHAPE, 50.0)) for seed in range(3)]
    epochs[0].mask[10, 10] |= np.uint16(MaskPlane.CR)
    epochs[0].image[10, 10] = 1e6
    for one in epochs:
        one.mask[20, 20] |= np.uint16(MaskPlane.BAD)
    result = coadd(epochs)
    assert result.image[10, 10] < 100
    assert result.variance[10, 10] == pytest.approx(75.0, rel=1e-4)
    assert result.mask[20, 20] & np.uint16(MaskPlane.NO_DATA)
    assert np.isnan(result.image[20, 20])


def test_a_saturated_core_is_kept_and_marked():
    epochs = [epoch(seed, np.zeros(SHAPE)) for seed in range(3)]
    for one in epochs:
        one.image[40:43, 40:43] = 1e5
        one.mask[40:43, 40:43] |= np.uint16(MaskPlane.SAT)
    result = coadd(epochs)
    assert result.image[41, 41] == pytest.approx(1e5)
    assert result.mask[41, 41] == np.uint16(MaskPlane.SAT)


def test_images_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        coadd([epoch(0, np.zeros(SHAPE)), MaskedImage(np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3)))])
    with pytest.raises(ValueError, match="one shape"):
        coadd([])
