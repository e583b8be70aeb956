"""What is left after subtraction is white noise and what has changed."""

import numpy as np
import pytest
from difference_scenes import SCIENCE_SIGMA, make_pair
from scipy.ndimage import maximum_filter, uniform_filter

from prompt_processing.domain.errors import SubtractionError
from prompt_processing.images.dia_detection import significance_map
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.photometry import psf_photometry
from prompt_processing.images.subtraction import (
    decorrelation_kernel,
    grow,
    kernel_reach,
    select_stamps,
    subtract,
)


def run(pair):
    return subtract(pair.science, pair.template, science_psf=pair.psf, x=pair.x, y=pair.y, flux=pair.flux)


@pytest.fixture(scope="module")
def subtraction():
    grid = [(x, y, 2.5e4) for x in range(60, 500, 95) for y in range(60, 480, 95)]
    pair = make_pair(transients=grid)
    return run(pair), grid


def quiet(result):
    bits = MaskPlane.EDGE | MaskPlane.SUSPECT | MaskPlane.NO_DATA
    return (result.difference.mask & np.uint16(bits)) == 0


def test_the_noise_is_white_and_as_large_as_the_variance_says():
    result = run(make_pair(n_stars=40, seed=4))
    keep = quiet(result)
    ratio = np.where(keep, result.difference.image / np.sqrt(result.difference.variance), 0.0)
    assert ratio[keep].std() == pytest.approx(1.0, abs=0.03)
    both = keep[:, 1:] & keep[:, :-1]
    assert (ratio[:, 1:] * ratio[:, :-1])[both].mean() == pytest.approx(0.0, abs=0.025)
    averaged = 3 * uniform_filter(ratio, 3)[quiet(result)]
    assert averaged.std() == pytest.approx(1.0, abs=0.05)
    assert result.metrics["noise_ratio"] == pytest.approx(1.0, abs=0.03)


def test_the_significance_map_has_unit_variance(subtraction):
    result, _ = subtraction
    _, spread = significance_map(result.difference, result.psf)
    assert spread == pytest.approx(1.0, abs=0.12)


def test_the_flux_of_what_is_new_is_right(subtraction):
    result, grid = subtraction
    x, y, flux = np.array(grid).T
    table = psf_photometry(result.difference, result.psf, x, y, free=False)
    ok = quiet(result)[y.astype(int), x.astype(int)]
    ratio = np.asarray(table["flux"])[ok] / flux[ok]
    assert ok.sum() > 15
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    pulls = (np.asarray(table["flux"])[ok] - flux[ok]) / np.asarray(table["flux_err"])[ok]
    assert 1.4826 * np.median(np.abs(pulls)) < 1.7


def test_stars_disappear():
    result = run(make_pair(n_stars=80, seed=7))
    keep = quiet(result)
    pulls = result.difference.image[keep] / np.sqrt(result.difference.variance[keep])
    assert np.abs(pulls).max() < 7.0
    assert result.matched_template.image.max() > 1000  # there were stars


def test_a_small_displacement_of_the_template_is_taken_up_by_the_kernel():
    result = run(make_pair(n_stars=80, seed=7, shift=0.3))
    keep = quiet(result)
    assert np.abs(result.difference.image[keep] / np.sqrt(result.difference.variance[keep])).max() < 7.0


def test_holes_do_not_spread_and_their_surroundings_are_marked():
    pair = make_pair()
    pair.template.image[200:230, 300:330] = np.nan
    pair.template.mask[200:230, 300:330] |= np.uint16(MaskPlane.NO_DATA)
    pair.science.image[100, 100] = np.nan
    pair.template.mask[400, 400] |= np.uint16(MaskPlane.SAT)
    result = run(pair)
    mask = result.difference.mask
    assert np.isfinite(result.difference.image).all()
    reach = int(result.metrics["kernel_reach"])
    assert mask[200 - reach, 315] & np.uint16(MaskPlane.NO_DATA)
    assert not mask[200 - reach - 1, 315] & np.uint16(MaskPlane.NO_DATA)
    assert mask[100, 100] & np.uint16(MaskPlane.NO_DATA)
    assert mask[400, 415] & np.uint16(MaskPlane.SAT_TEMPLATE)
    assert mask[400, 415] & np.uint16(MaskPlane.SUSPECT)
    assert not mask[400, 430] & np.uint16(MaskPlane.SAT_TEMPLATE)


def test_the_same_input_gives_the_same_bits():
    first, second = run(make_pair(seed=9)), run(make_pair(seed=9))
    assert np.array_equal(first.difference.image, second.difference.image)
    assert np.array_equal(first.psf.coefficients, second.psf.coefficients)


def test_images_that_do_not_belong_together_are_refused():
    pair = make_pair()
    other = make_pair((300, 300))
    with pytest.raises(SubtractionError, match="differ in shape"):
        subtract(pair.science, other.template, science_psf=pair.psf, x=pair.x, y=pair.y, flux=pair.flux)
    pair.template.mask |= np.uint16(MaskPlane.NO_DATA)
    with pytest.raises(SubtractionError, match="none of the"):
        run(pair)


def test_decorrelation_makes_the_noise_of_a_smoothed_template_white():
    ys, xs = np.mgrid[-12:13, -12:13]
    kernel = np.exp(-0.5 * (xs**2 + ys**2) / 2.0**2)
    kernel *= 1.1 / kernel.sum()
    decorrelation = decorrelation_kernel(kernel, 100.0, 60.0)
    assert decorrelation.sum() == pytest.approx(1.0)
    power = np.abs(np.fft.fft2(kernel, (128, 128))) ** 2
    total = (100.0 + 60.0 * power) * np.abs(np.fft.fft2(decorrelation, (128, 128))) ** 2
    np.testing.assert_allclose(total, 100.0 + 60.0 * 1.1**2, rtol=0.02)


def test_without_template_noise_nothing_is_decorrelated():
    kernel = np.full((5, 5), 0.04)
    expected = np.zeros((5, 5))
    expected[2, 2] = 1.0
    np.testing.assert_allclose(decorrelation_kernel(kernel, 100.0, 0.0), expected, atol=1e-12)


def test_growth_of_a_mask_is_a_square_and_keeps_bits_apart():
    mask = np.zeros((30, 40), np.uint16)
    mask[10, 12] = 1
    mask[15, 20:25] = 4
    grown = grow(mask, 3)
    expected = np.zeros_like(mask)
    expected[7:14, 9:16] |= 1
    expected[12:19, 17:28] |= 4
    assert np.array_equal(grown, expected)
    assert np.array_equal(grow(mask, 0), mask)


@pytest.mark.parametrize("radius", [1, 2])
def test_growth_by_a_pixel_or_two_sets_the_bits_of_all_neighbours(radius):
    rng = np.random.default_rng(8)
    shape = (23, 31)
    mask = (1 << rng.integers(0, 3, shape) * (rng.random(shape) < 0.04)).astype(np.uint16) & np.uint16(6)
    mask[5, 10:14] = mask[0, :2] = mask[-1, -1] = 2
    size = 2 * radius + 1
    expected = sum(
        bit * maximum_filter((mask & bit) // bit, size, mode="constant") for bit in map(np.uint16, (2, 4))
    )
    assert np.array_equal(grow(mask, radius), expected)


def test_the_reach_of_a_kernel_holds_nearly_all_of_it():
    ys, xs = np.mgrid[-20:21, -20:21]
    kernel = np.exp(-0.5 * (xs**2 + ys**2) / SCIENCE_SIGMA**2)
    reach = kernel_reach(kernel)
    inside = (np.abs(xs) <= reach) & (np.abs(ys) <= reach)
    assert kernel[inside].sum() >= 0.98 * kernel.sum()
    assert 2 * SCIENCE_SIGMA < reach < 3.5 * SCIENCE_SIGMA


def test_stamps_cover_the_image_and_avoid_what_is_not_usable():
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 1600, 3000), rng.uniform(0, 1600, 3000)
    flux = 10 ** rng.uniform(3, 6, 3000) * np.where(x < 800, 100.0, 1.0)  # all bright ones at the left
    usable = np.ones((1600, 1600), dtype=bool)
    usable[:, 1500:] = False
    chosen = select_stamps(x, y, flux, usable)
    assert len(chosen) == 300 == len(set(chosen.tolist()))
    assert (x[chosen] < 1500).all()
    assert ((x[chosen] > 800).sum()) > 80
