import numpy as np
import pytest

from prompt_processing.domain.errors import ScienceError
from prompt_processing.images.background import subtract_background
from prompt_processing.images.detection import detect_sources
from prompt_processing.images.masks import MaskPlane


def gradient(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (800 + 60 * x / shape[1] + 40 * (y / shape[0]) ** 2).astype(np.float32)


def test_gradient_under_stars_is_removed_and_can_be_drawn_again(make_scene):
    scene = make_scene((600, 700), n_stars=30)
    sky = gradient((600, 700))
    scene.masked.image += sky
    before = scene.masked.image.copy()
    background = subtract_background(scene.masked)
    assert np.array_equal(before - background.render(), scene.masked.image)
    detect_sources(scene.masked, fwhm=9.0)
    second = subtract_background(scene.masked)
    error = background.render() + second.render() - sky
    assert abs(error.mean()) < 1.5
    assert error.std() < 3.0
    assert second.rms == pytest.approx(np.sqrt(1000 + 81), rel=0.05)
    assert background.level == pytest.approx(np.median(sky), abs=8)
    assert background.mesh.dtype == np.float64


def test_masked_regions_and_nan_do_not_count(make_scene):
    scene = make_scene((500, 512), n_stars=0, n_galaxies=0)
    image = scene.masked.image
    image += 500
    image[100:300, 200:330] = 1e6
    scene.masked.mask[100:300, 200:330] = MaskPlane.BAD
    image[400:440, 60:90] = np.nan
    background = subtract_background(scene.masked)
    assert np.abs(background.render() - 500).max() < 8


def test_no_sky_is_an_error(make_scene):
    scene = make_scene((100, 120), n_stars=0, n_galaxies=0)
    scene.masked.mask[:] = MaskPlane.SAT
    with pytest.raises(ScienceError, match=r"0.00 % of the pixels"):
        subtract_background(scene.masked)
