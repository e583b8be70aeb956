import numpy as np
import pytest
from scipy.spatial import cKDTree

from prompt_processing.domain.errors import PsfError, ScienceError
from prompt_processing.images.detection import (
    detect_sources,
    estimate_fwhm,
    half_sample_mode,
    smooth_gaussian,
)
from prompt_processing.images.masks import MaskPlane


def test_stars_above_the_threshold_are_found_and_noise_is_not(make_scene):
    rng = np.random.default_rng(1)
    grid = np.mgrid[60:560:100, 60:660:100].reshape(2, -1) + rng.uniform(-8, 8, (2, 30))
    # One sigma is 500 electrons at this seeing and sky.
    flux = np.where(np.arange(30) % 3 == 0, 1000.0, 6000.0)
    scene = make_scene((600, 700), n_galaxies=0, positions=(grid[1], grid[0]), fluxes=flux)
    sources = detect_sources(scene.masked, fwhm=9.0, threshold=5.0)
    distance, match = cKDTree(np.c_[sources["x"], sources["y"]]).query(np.c_[scene.x, scene.y])
    assert (distance[flux > 2000] < 3).all()
    assert (distance[flux < 2000] > 3).sum() >= 8
    found = match[flux > 2000]
    # The filter is a Gaussian, the stars have wings.
    assert np.median(sources["flux"][found]) == pytest.approx(0.82 * 6000, rel=0.05)
    assert np.median(sources["snr"][found]) == pytest.approx(6000 / 560, rel=0.15)
    assert len(sources) <= 23
    assert (np.diff(sources["flux"]) <= 0).all()
    detected = (scene.masked.mask & np.uint16(MaskPlane.DETECTED)) != 0
    assert detected[np.round(sources["y"]).astype(int), np.round(sources["x"]).astype(int)].all()


def test_pure_noise_has_no_sources(make_scene):
    scene = make_scene((600, 700), n_stars=0, n_galaxies=0)
    assert len(detect_sources(scene.masked, fwhm=9.0)) <= 1


@pytest.mark.parametrize(("fwhm", "tolerance"), [(4.0, 0.15), (9.0, 0.07)])
def test_fwhm_among_galaxies_and_cosmic_rays(make_scene, fwhm, tolerance):
    scene = make_scene((600, 700), n_stars=40, n_galaxies=12, fwhm=fwhm, low=1e4)
    rng = np.random.default_rng(2)
    scene.masked.image[rng.integers(0, 600, 200), rng.integers(0, 700, 200)] += 3000
    assert estimate_fwhm(scene.masked) == pytest.approx(fwhm, rel=tolerance)


def test_fwhm_needs_stars(make_scene):
    scene = make_scene((200, 200), n_stars=2, n_galaxies=0)
    with pytest.raises(PsfError, match="5 are needed"):
        estimate_fwhm(scene.masked)
    scene.masked.mask[:] = MaskPlane.BAD
    with pytest.raises(ScienceError):
        detect_sources(scene.masked, fwhm=9.0)


def test_flags_tell_what_a_source_sits_on(make_scene):
    scene = make_scene((200, 200), n_galaxies=0, positions=([60, 140], [100, 100]), fluxes=[1e5, 2e5])
    scene.masked.mask[99:102, 139:142] |= np.uint16(MaskPlane.SAT)
    sources = detect_sources(scene.masked, fwhm=9.0)
    assert [bool(flags & MaskPlane.SAT) for flags in sources["flags"]] == [True, False]


def test_smoothing_is_a_gaussian_of_integral_one():
    image = np.zeros((41, 51), np.float32)
    image[20, 25] = 1.0
    smooth = smooth_gaussian(image, 2.5)
    y, x = np.mgrid[:41, :51]
    expected = np.exp(-((x - 25) ** 2 + (y - 20) ** 2) / (2 * 2.5**2)) / (2 * np.pi * 2.5**2)
    assert np.abs(smooth - expected).max() < 2e-4 * expected.max() + 1e-5
    assert smooth.sum() == pytest.approx(1.0, abs=1e-5)


def test_half_sample_mode_finds_the_dense_part():
    rng = np.random.default_rng(0)
    values = np.sort(np.r_[rng.normal(9, 0.2, 60), rng.uniform(2, 30, 60)])
    assert half_sample_mode(values) == pytest.approx(9.0, abs=0.3)
