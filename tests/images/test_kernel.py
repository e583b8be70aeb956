"""The matching kernel is found again."""

import numpy as np
import pytest
from difference_scenes import SCIENCE_SIGMA, SKY, TEMPLATE_SIGMA, Pair, draw, gaussian_psf, make_pair, noisy
from scipy.signal import fftconvolve

from prompt_processing.domain.errors import SubtractionError
from prompt_processing.images.kernel import MatchingKernel, fit_kernel
from prompt_processing.images.kernel_stamps import (
    REFERENCE_FWHM,
    SMALL_DEGREES,
    Stamps,
    exponents,
    make_basis,
)
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


def test_the_sum_of_a_kernel_varies_linearly_at_most():
    pair = make_pair(n_stars=80)
    ny, nx = pair.science.shape
    u, v = (2 * np.arange(n) / n - 1 for n in (nx, ny))
    clouds = 1.0 + 0.1 * u - 0.05 * v[:, None] + 0.03 * u**2
    pair.science.image *= clouds.astype(np.float32)
    kernel = fit(pair).kernel
    assert kernel.order == 2
    sums = dict(zip(exponents(2), kernel.planes.sum((1, 2)), strict=True))
    assert sums[1, 0] == pytest.approx(0.1, abs=0.01)
    assert sums[0, 1] == pytest.approx(-0.05, abs=0.01)
    assert [sums[term] for term in ((2, 0), (1, 1), (0, 2))] == pytest.approx([0.0] * 3, abs=1e-9)


def bright_pair(change):
    """Return 49 equal stars far above the noise, of which the middle one has changed by a share."""
    grid = np.arange(40, 500, 70.0)
    x, y = (each.ravel() for each in np.meshgrid(grid, grid))
    flux = np.full(x.size, 1e7)
    now = flux * np.where((x == 250) & (y == 250), 1.0 + change, 1.0)
    rng = np.random.default_rng(2)
    science = noisy(draw((500, 500), x, y, now, SCIENCE_SIGMA), SKY, rng)
    template = noisy(draw((500, 500), x, y, flux, TEMPLATE_SIGMA), SKY / 5, rng)
    return Pair(science, template, gaussian_psf((500, 500), SCIENCE_SIGMA), x, y, flux)


@pytest.mark.parametrize(("change", "kept"), [(0.015, True), (0.05, False)])
def test_a_bright_star_is_forgiven_two_percent(change, kept):
    pair = bright_pair(change)
    fitted = fit(pair)
    star = (pair.x == 250) & (pair.y == 250)
    assert fitted.used[star].item() is kept
    assert fitted.used[~star].all()


def one_stamp(transient):
    """Return stamps around one star, which something may be next to or on, and the coefficients without."""
    x, y = np.array([60.0]), np.array([60.0])
    basis = make_basis(FWHM / REFERENCE_FWHM, SMALL_DEGREES)
    usable = np.ones((121, 121), dtype=bool)

    def stamps(*others):
        rng = np.random.default_rng(6)
        at = [[60.0, *others[:1]], [60.0, *others[1:2]], [1e5, *others[2:]]]
        science = noisy(draw((121, 121), *at, SCIENCE_SIGMA), SKY, rng)
        template = noisy(draw((121, 121), x, y, [1e5], TEMPLATE_SIGMA), SKY / 5, rng)
        return Stamps(science, template, usable, x, y, basis)

    clean = stamps().equations
    coefficients = np.linalg.lstsq(clean.matrix[0], clean.vector[0], rcond=1e-9)[0]
    return stamps(*transient), coefficients


def test_a_transient_beside_a_star_is_cut_out_of_its_stamp():
    stamps, coefficients = one_stamp((75.0, 70.0, 3e4))
    pixels, before = stamps.equations.pixels[0], stamps.equations.chi2(coefficients[None])[0]
    assert before > 1.5 * pixels
    assert stamps.repair(0, coefficients)
    left = stamps.equations.pixels[0]
    # Below 1 a pixel: the noise that was expected has the template's unsmoothed.
    assert 0.7 * left < stamps.equations.chi2(coefficients[None])[0] < left
    assert 100 < pixels - left < 1000


@pytest.mark.parametrize("transient", [(), (60.0, 60.0, 3e4)])
def test_a_stamp_of_a_good_or_a_changed_star_is_left_as_it_is(transient):
    stamps, coefficients = one_stamp(transient)
    before = stamps.equations.matrix.copy()
    assert not stamps.repair(0, coefficients)
    assert np.array_equal(stamps.equations.matrix, before)


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
