"""The matching kernel is found again."""

import numpy as np
import pytest
from difference_scenes import SCIENCE_SIGMA, TEMPLATE_SIGMA, draw, make_pair
from scipy.signal import fftconvolve

from prompt_processing.domain.errors import SubtractionError
from prompt_processing.images.kernel import MatchingKernel, fit_kernel
from prompt_processing.images.kernel_stamps import exponents
from prompt_processing.images.psf import polynomial_terms

FWHM = 2.3548 * SCIENCE_SIGMA


def fit(pair):
    usable = np.ones(pair.science.shape, dtype=bool)
    return fit_kernel(pair.science, pair.template, usable, pair.x, pair.y, fwhm=FWHM)


def test_the_kernel_turns_one_psf_and_scale_into_the_other():
    fitted = fit(make_pair(noise=False, scale=0.8))
    size = (81, 81)
    template = draw(size, [40], [40], [0.8], TEMPLATE_SIGMA)
    wanted = draw(size, [40], [40], [1.0], SCIENCE_SIGMA)
    for x, y in ((256, 250), (60, 400)):
        matched = fftconvolve(template, fitted.kernel.at(x, y), mode="same")
        assert np.abs(matched - wanted).max() < 2e-3 * wanted.max()
    assert fitted.kernel.central.sum() == pytest.approx(1 / 0.8, rel=2e-3)


def test_noise_does_not_change_the_sum_by_more_than_its_error():
    fitted = fit(make_pair())
    assert fitted.kernel.central.sum() == pytest.approx(1.0, rel=0.005)
    smoothed = 200.0 * (fitted.kernel.central**2).sum()  # the template's noise, after the kernel
    assert fitted.chi2_per_pixel == pytest.approx((1000.0 + smoothed) / 1200.0, abs=0.03)


def test_transients_beside_the_stars_do_not_cost_the_stamps():
    grid = [(x, y, 2.5e4) for x in range(40, 500, 60) for y in range(40, 480, 60)]
    fitted = fit(make_pair(transients=grid))
    assert fitted.used.mean() > 0.75
    assert fitted.kernel.central.sum() == pytest.approx(1.0, rel=0.01)


def test_a_star_that_has_changed_is_left_out():
    pair = make_pair()
    star = int(np.argmin((pair.x - 256) ** 2 + (pair.y - 250) ** 2))
    x, y = pair.x[star], pair.y[star]
    ys, xs = np.mgrid[: pair.science.shape[0], : pair.science.shape[1]]
    pair.science.image += (5e5 / (2 * np.pi * SCIENCE_SIGMA**2)) * np.exp(
        -0.5 * ((xs - x) ** 2 + (ys - y) ** 2) / SCIENCE_SIGMA**2
    ).astype(np.float32)
    fitted = fit(pair)
    assert not fitted.used[star]
    assert fitted.used.sum() >= 0.7 * len(pair.x)
    assert fitted.kernel.central.sum() == pytest.approx(1.0, rel=0.01)


def test_three_stars_still_give_a_constant_kernel():
    pair = make_pair()
    inside = np.argsort((pair.x - 256) ** 2 + (pair.y - 250) ** 2)[:3]
    usable = np.ones(pair.science.shape, dtype=bool)
    fitted = fit_kernel(pair.science, pair.template, usable, pair.x[inside], pair.y[inside], fwhm=FWHM)
    assert fitted.kernel.order == 0
    assert fitted.kernel.central.sum() == pytest.approx(1.0, rel=0.03)


def test_a_kernel_is_the_same_from_factors_and_at_a_position():
    rng = np.random.default_rng(3)
    kernel = MatchingKernel(rng.normal(size=(6, 5, 5)), 2, (400, 300))
    x, y = np.array([17.0, 250.0]), np.array([30.0])
    factors = [kernel.factor(k, y, x) for k in range(6)]
    summed = sum(f[0][0] * f[1][1] * plane for f, plane in zip(factors, kernel.planes, strict=True))
    np.testing.assert_allclose(kernel.at(250.0, 30.0), summed)


def test_exponents_are_in_the_order_of_the_terms():
    u, v = 2 * 30 / 200 - 1, 2 * 70 / 100 - 1
    expected = [u**i * v**j for i, j in exponents(3)]
    np.testing.assert_allclose(polynomial_terms(30, 70, (100, 200), 3), expected)


def test_without_usable_pixels_there_is_no_kernel():
    pair = make_pair()
    nothing = np.zeros(pair.science.shape, dtype=bool)
    with pytest.raises(SubtractionError, match="none of the"):
        fit_kernel(pair.science, pair.template, nothing, pair.x, pair.y, fwhm=FWHM)
