import numpy as np
import pytest

from prompt_processing.domain.errors import PhotometryError
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.photometry import (
    aperture_photometry,
    fit_zero_point,
    psf_photometry,
    subtract_stars,
)
from prompt_processing.images.psf import PsfModel

SHAPE = (800, 900)


def true_psf(scene, half=30):
    """The scene's PSF at its centre, as a model."""
    ny, nx = scene.masked.shape
    stamp = scene.psf(nx / 2, ny / 2, half)
    return PsfModel((stamp / stamp.sum())[np.newaxis], 0, scene.masked.shape)


def field(make_scene, flux, seed=1, step=80, **changes):
    """Stars of one flux on a grid, 80 px apart, at random fractions, all with the central PSF."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[60 : SHAPE[0] - 50 : step, 60 : SHAPE[1] - 50 : step].reshape(2, -1).astype(float)
    x += rng.uniform(-0.5, 0.5, x.size)
    y += rng.uniform(-0.5, 0.5, x.size)
    return make_scene(
        SHAPE,
        n_galaxies=0,
        positions=(x, y),
        fluxes=np.full(x.size, flux),
        seed=seed,
        varying=False,
        **changes,
    )


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("flux", [6e3, 3e5])
def test_fluxes_are_unbiased_and_errors_are_right(make_scene, free, flux):
    scene = field(make_scene, flux)
    offset = 0.4 if free else 0.0
    result = psf_photometry(scene.masked, true_psf(scene), scene.x + offset, scene.y - offset, free=free)
    n = result["flux"].size
    assert n >= 80
    error = np.median(result["flux_err"])
    # 0.2 % of the light lies outside the stamp of this model.
    inside = scene.psf(450, 400, 30).sum()
    assert inside > 0.997
    assert result["flux"].mean() == pytest.approx(flux * inside, abs=3.5 * error / np.sqrt(n))
    pull = (result["flux"] - result["flux"].mean()) / result["flux_err"]
    assert 0.8 < pull.std() < 1.2
    if free:
        for name, truth in (("x", scene.x), ("y", scene.y)):
            pull = (result[name] - truth) / result[name + "_err"]
            assert abs(pull.mean()) < 0.35
            assert 0.8 < pull.std() < 1.25
    else:
        assert np.array_equal(result["x"], scene.x)
        assert np.isnan(result["x_err"]).all()
    reduced = result["chi2"] / result["n_pixels"]
    assert np.median(reduced) == pytest.approx(1.0, abs=0.05)


def test_faint_forced_fluxes_do_not_lean_to_either_side(make_scene):
    # Weights from the pixels' own variance would pull these by a third of a sigma.
    scene = field(make_scene, 0.0, step=40, sky=200.0, read_noise=5.0)
    psf = true_psf(scene)
    result = psf_photometry(scene.masked, psf, scene.x, scene.y, free=False)
    pull = np.asarray(result["flux"] / result["flux_err"])
    assert pull.size > 300
    assert abs(pull.mean()) < 0.2


def test_neighbours_do_not_add_to_each_other(make_scene):
    x = np.array([200.0, 213.3, 500.0, 700.2])
    y = np.array([200.0, 204.6, 500.0, 300.9])
    flux = np.array([1e6, 1e5, 5e4, 5e4])
    scene = make_scene(SHAPE, n_galaxies=0, positions=(x, y), fluxes=flux)
    stamp = scene.psf(205, 202, 40)
    psf = PsfModel((stamp / stamp.sum())[np.newaxis], 0, SHAPE)
    table, residual = subtract_stars(scene.masked, psf, x + 0.3, y - 0.2)
    assert table["flux"][1] == pytest.approx(1e5, rel=0.03)
    # 3 % of the peak of the bright one are left at most, and nothing of the faint one.
    assert np.abs(residual[190:220, 190:230]).max() < 0.03 * scene.masked.image[190:220, 190:230].max()
    assert np.array_equal(residual[600:, :300], scene.masked.image[600:, :300])


def test_masked_pixels_edges_and_lost_stars(make_scene):
    scene = make_scene(
        (200, 200), n_galaxies=0, positions=([60.2, 3.0, 150.0], [60.7, 100.0, 150.0]), fluxes=[1e5, 1e5, 0.0]
    )
    scene.masked.image[58:61, 58:61] = 1e6
    scene.masked.mask[58:61, 58:61] |= np.uint16(MaskPlane.CR)
    scene.masked.mask[120:180, 120:180] |= np.uint16(MaskPlane.NO_DATA)
    psf = true_psf(scene)
    table = psf_photometry(
        scene.masked, psf, [60.0, 3.3, 150.0, 900.0], [60.4, 100.2, 150.0, 900.0], free=True
    )
    assert table["flux"][0] == pytest.approx(1e5, rel=0.05)
    assert 0.5 < table["coverage"][0] < 0.95
    assert table["flux"][1] == pytest.approx(1e5, rel=0.1)
    assert table["coverage"][1] < 0.9
    assert np.isnan(table["flux"][2])
    assert table["n_pixels"][2] == 0
    assert np.isnan(table["flux"][3])
    # A place without a star does not run away.
    lonely = psf_photometry(scene.masked, psf, [100.0], [30.0], free=True)
    assert np.hypot(lonely["x"][0] - 100, lonely["y"][0] - 30) <= 4.6


def test_apertures_sum_the_flux_and_tell_what_is_missing(make_scene):
    scene = make_scene((300, 300), n_galaxies=0, positions=([100, 250], [150, 150]), fluxes=[2e5, 2e5])
    scene.masked.mask[150, 250] |= np.uint16(MaskPlane.CR)
    table = aperture_photometry(scene.masked, scene.x, scene.y, 30.0)
    assert table["flux"][0] == pytest.approx(2e5 * 0.9974, abs=4 * table["flux_err"][0])
    assert table["incomplete"].tolist() == [False, True]


def test_zero_point_survives_variables_and_wrong_matches():
    rng = np.random.default_rng(3)
    magnitude = rng.uniform(15, 20, 200)
    flux = 10 ** (0.4 * (28.13 - magnitude))
    error = np.sqrt(flux + 250.0**2)
    flux += rng.normal(0, error)
    magnitude += rng.normal(0, 0.01, 200)
    magnitude[:30] += rng.uniform(-3, 3, 30)
    zero_point = fit_zero_point(flux, error, magnitude)
    assert zero_point.magnitude == pytest.approx(28.13, abs=0.005)
    assert zero_point.nanojansky_per_count == pytest.approx(10 ** (0.4 * (31.4 - 28.13)), rel=0.005)
    assert 0.005 < zero_point.scatter_mag < 0.03
    assert zero_point.error_mag < 0.004
    assert 130 <= zero_point.n_used <= 175


def test_zero_point_needs_stars_that_agree():
    with pytest.raises(PhotometryError, match="2 stars"):
        fit_zero_point(
            np.array([1e4, 2e4, np.nan]), np.array([10.0, 10.0, 10.0]), np.array([18.0, 17.2, 15.0])
        )
    rng = np.random.default_rng(1)
    with pytest.raises(PhotometryError, match=r"scatter by|agree on"):
        fit_zero_point(np.full(50, 1e5), np.full(50, 100.0), rng.uniform(14, 20, 50))
