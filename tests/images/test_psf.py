import numpy as np
import pytest

from prompt_processing.images.psf import PsfModel, polynomial_terms

SHAPE = (400, 500)


def gaussian(sigma_x, sigma_y, dx=0.0, dy=0.0, half=24):
    grid = np.arange(-half, half + 1)
    stamp = np.exp(-0.5 * ((grid - dx) / sigma_x) ** 2 - 0.5 * ((grid[:, None] - dy) / sigma_y) ** 2)
    return stamp / stamp.sum()


def model():
    """A PSF that widens along x: first order, so that at() is known exactly."""
    narrow, wide = gaussian(2.5, 2.5), gaussian(3.5, 3.0)
    # Terms 1, v, u: u = -1 is the narrow one, u = +1 the wide one.
    return PsfModel(np.stack([(narrow + wide) / 2, np.zeros_like(narrow), (wide - narrow) / 2]), 1, SHAPE)


def test_terms_have_the_documented_order():
    terms = polynomial_terms([375.0], [100.0], SHAPE, 2)[:, 0]
    u, v = 0.5, -0.5
    assert terms.tolist() == [1.0, v, v * v, u, u * v, u * u]


def test_psf_follows_the_position():
    psf = model()
    assert np.allclose(psf.at(0, 200), gaussian(2.5, 2.5), atol=1e-12)
    assert np.allclose(psf.at(500, 10), gaussian(3.5, 3.0), atol=1e-12)
    assert psf.at(123, 45).sum() == pytest.approx(1.0, abs=1e-12)


def test_fwhm_is_that_of_the_contour():
    psf = model()
    assert psf.fwhm(0, 0) == pytest.approx(2.5 * 2.3548, rel=0.01)
    assert psf.fwhm(500, 0) == pytest.approx(np.sqrt(3.5 * 3.0) * 2.3548, rel=0.01)


@pytest.mark.parametrize(("x", "y"), [(100.3, 50.2), (99.5, 50.49), (100.0, 50.0), (7.75, 399.6)])
def test_rendering_moves_the_star_by_the_fraction_of_its_position(x, y):
    dx, dy = x - np.floor(x + 0.5), y - np.floor(y + 0.5)
    for sigma, tolerance in ((2.0, 1e-3), (3.8, 2e-5)):
        constant = PsfModel(gaussian(sigma, sigma)[np.newaxis], 0, SHAPE)
        expected = gaussian(sigma, sigma, dx, dy)
        assert np.abs(constant.render(x, y) - expected).max() < tolerance * expected.max()
