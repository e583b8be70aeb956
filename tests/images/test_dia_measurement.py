"""Measurements of difference-image sources against what was put in."""

from importlib.resources import files

import numpy as np
import pytest
import yaml
from astropy.wcs import WCS
from difference_scenes import draw, gaussian_psf, white

from prompt_processing.images.dia_detection import detect
from prompt_processing.images.dia_flags import DISQUALIFYING_FLAGS
from prompt_processing.images.dia_measurement import is_disqualified, measure
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.masks import MaskPlane

SHAPE = (420, 440)
SIGMA = 3.6
SCALE = 0.0957
UNIT = 10.0 * np.sqrt(4 * np.pi) * SIGMA  # flux of a source of S/N 1
ROTATION = 30.0


@pytest.fixture(scope="module")
def wcs():
    result = WCS(naxis=2)
    result.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    result.wcs.crval = [150.0, -30.0]
    result.wcs.crpix = [220.5, 210.5]
    c, s = np.cos(np.radians(ROTATION)), np.sin(np.radians(ROTATION))
    result.wcs.cd = SCALE / 3600 * np.array([[-c, s], [s, c]])
    result.wcs.set()
    return result


def run(difference, psf, wcs, *, science=None, template=None):
    flat = np.zeros(SHAPE)
    blank = MaskedImage(flat, flat + 100.0, np.zeros(SHAPE, np.uint16))
    return measure(
        difference,
        science if science is not None else blank,
        template if template is not None else blank,
        psf=psf,
        science_psf=gaussian_psf(SHAPE, SIGMA),
        peaks=detect(difference, psf),
        wcs=wcs,
    )


def apdb_columns():
    schema = yaml.safe_load(files("lsst.sdm.schemas").joinpath("apdb.yaml").read_text())
    return next(t for t in schema["tables"] if t["name"] == "DiaSource")["columns"]


def test_the_columns_are_the_apdbs_with_their_types(wcs):
    sources = run(*white(SHAPE, SIGMA, [(100, 100, 50 * UNIT)]), wcs)
    kinds = {"float": "f4", "double": "f8", "boolean": "b1", "int": "i4"}
    known = {column["name"]: column for column in apdb_columns()}
    for name in sources.colnames:
        assert sources[name].dtype == np.dtype(kinds[known[name]["datatype"]]), name
    from_elsewhere = {"diaSourceId", "visit", "detector", "midpointMjdTai", "timeProcessedMjdTai"}
    required = {name for name, column in known.items() if not column.get("nullable", True)} - from_elsewhere
    assert required <= set(sources.colnames)
    assert set(DISQUALIFYING_FLAGS) <= set(sources.colnames)
    pixel = {name for name in known if name.startswith("pixelFlags")}
    assert pixel <= set(sources.colnames)


def test_flux_and_position_of_point_sources_of_both_signs(wcs):
    truth = [(100.3, 80.6, 40 * UNIT), (300.8, 250.1, -60 * UNIT), (200.5, 330.5, 25 * UNIT)]
    sources = run(*white(SHAPE, SIGMA, truth), wcs)
    assert len(sources) == 3
    for row, (x, y, flux) in zip(sources, truth, strict=True):
        assert abs(row["psfFlux"] - flux) < 4 * row["psfFluxErr"]
        assert row["psfFluxErr"] == pytest.approx(UNIT, rel=0.1)
        assert abs(row["x"] - x) < 4 * row["xErr"]
        assert abs(row["y"] - y) < 4 * row["yErr"]
        assert row["xErr"] == pytest.approx(SIGMA * np.sqrt(2) * UNIT / abs(flux), rel=0.3)
        ra, dec = wcs.all_pix2world(row["x"], row["y"], 0)
        assert (row["ra"], row["dec"]) == (pytest.approx(float(ra)), pytest.approx(float(dec)))
        assert row["isNegative"] == (flux < 0)
        assert row["psfChi2"] / row["psfNdata"] == pytest.approx(1.0, abs=0.2)
        # A Gaussian of this width has all but exp(-12^2 / 2 sigma^2) of its flux in the aperture.
        assert row["apFlux"] == pytest.approx(flux, abs=4 * float(row["apFluxErr"]))
    assert not is_disqualified(sources).any()


def test_position_errors_turn_with_the_sky(wcs):
    difference, psf = white(SHAPE, SIGMA, [(200, 200, 50 * UNIT)])
    row = run(difference, psf, wcs)[0]
    scale = SCALE / 3600
    c, s = np.cos(np.radians(ROTATION)), np.sin(np.radians(ROTATION))
    assert row["raErr"] == pytest.approx(scale * np.hypot(c * row["xErr"], s * row["yErr"]), rel=1e-3)
    assert row["decErr"] == pytest.approx(scale * np.hypot(s * row["xErr"], c * row["yErr"]), rel=1e-3)
    expected = scale**2 * c * s * (row["yErr"] ** 2 - row["xErr"] ** 2)
    assert row["ra_dec_Cov"] == pytest.approx(expected, rel=1e-3)


def test_a_misplaced_star_is_a_dipole_with_its_direction(wcs):
    difference, psf = white(SHAPE, SIGMA)
    lobes = draw(SHAPE, [201.5, 198.5], [200, 200], [2e4, -2e4], SIGMA)
    difference.image += lobes.astype(np.float32)
    sources = run(difference, psf, wcs)
    assert len(sources) == 2
    assert sources["isDipole"].all()
    assert is_disqualified(sources).all()
    row = sources[0]
    assert row["dipoleFluxDiff"] == pytest.approx(0.0, abs=5 * float(row["dipoleFluxDiffErr"]))
    # From the negative to the positive lobe is +x.
    direction = wcs.all_pix2world([198.5, 201.5], [200, 200], 0)
    east = (direction[0][1] - direction[0][0]) * np.cos(np.radians(-30.0))
    bearing = np.degrees(np.arctan2(east, direction[1][1] - direction[1][0])) % 360
    assert (row["dipoleAngle"] - bearing + 180) % 360 - 180 == pytest.approx(0.0, abs=8.0)
    assert row["dipoleLength"] > 0.1


def test_a_transient_and_two_neighbours_are_no_dipoles(wcs):
    sources = [(100, 100, 100 * UNIT), (200, 200, 50 * UNIT), (220, 200, 50 * UNIT)]
    assert not run(*white(SHAPE, SIGMA, sources), wcs)["isDipole"].any()


def test_a_trail_has_its_length_and_direction(wcs):
    difference, psf = white(SHAPE, SIGMA)
    length, angle = 20.0, 25.0
    steps = np.linspace(-0.5, 0.5, 201) * length
    dx, dy = steps * np.cos(np.radians(angle)), steps * np.sin(np.radians(angle))
    flux = 150 * UNIT
    trail = draw(SHAPE, 200.3 + dx, 210.7 + dy, np.full(201, flux / 201), SIGMA)
    difference.image += trail.astype(np.float32)
    row = run(difference, psf, wcs)[0]
    assert row["trailLength"] / SCALE == pytest.approx(length, abs=0.8)
    assert row["trailFlux"] == pytest.approx(flux, rel=0.04)
    ends = wcs.all_pix2world(
        [200.0, 200.0 + np.cos(np.radians(angle))], [210.0, 210.0 + np.sin(np.radians(angle))], 0
    )
    east = (ends[0][1] - ends[0][0]) * np.cos(np.radians(-30.0))
    bearing = np.degrees(np.arctan2(east, ends[1][1] - ends[1][0])) % 180
    assert (row["trailAngle"] - bearing + 90) % 180 - 90 == pytest.approx(0.0, abs=3.0)
    assert row["trailChi2"] < row["psfChi2"]
    assert row["extendedness"] > 0.2
    x, y = wcs.all_world2pix(row["trailRa"], row["trailDec"], 0)
    assert (float(x), float(y)) == (pytest.approx(200.3, abs=0.4), pytest.approx(210.7, abs=0.4))


def test_the_shape_of_a_point_source_is_the_psfs(wcs):
    row = run(*white(SHAPE, SIGMA, [(200.4, 200.2, 300 * UNIT)]), wcs)[0]
    assert row["ixxPSF"] == pytest.approx((SIGMA * SCALE) ** 2, rel=0.02)
    for name in ("ixx", "iyy", "ixy"):
        assert row[name] == pytest.approx(row[f"{name}PSF"], abs=0.03 * float(row["ixxPSF"]))
    assert row["extendedness"] < 0.03
    assert row["trailLength"] / SCALE < 4.0
    assert not row["shape_flag"]


@pytest.mark.parametrize(
    ("plane", "flag"),
    [
        (MaskPlane.SAT, "pixelFlags_saturatedCenter"),
        (MaskPlane.SAT_TEMPLATE, "pixelFlags_saturatedCenter"),
        (MaskPlane.SUSPECT, "pixelFlags_suspectCenter"),
        (MaskPlane.STREAK, "pixelFlags_streakCenter"),
        (MaskPlane.INTRP, "pixelFlags_interpolatedCenter"),
    ],
)
def test_what_the_mask_says_of_the_centre_disqualifies(wcs, plane, flag):
    difference, psf = white(SHAPE, SIGMA, [(200, 200, 200 * UNIT), (300, 300, 50 * UNIT)])
    difference.mask[199:202, 199:202] |= np.uint16(plane)
    difference.mask[306, 300] |= np.uint16(plane)  # in the footprint of the second, not at its centre
    sources = run(difference, psf, wcs)
    near = np.hypot(sources["x"] - 200, sources["y"] - 200) < 8  # a saturated core leaves peaks around it
    assert sources[flag][near].any()
    assert not sources[flag][~near].any()
    assert sources[flag.removesuffix("Center")][~near].all()
    assert not is_disqualified(sources)[~near].any()


def test_a_cosmic_ray_that_was_missed_is_recognised(wcs):
    difference, psf = white(SHAPE, SIGMA, [(100, 100, 20 * UNIT)])
    difference.image[300, 200:203] += 2000.0
    sources = run(difference, psf, wcs)
    assert list(sources["pixelFlags_crCenter"]) == [False, True]


def test_the_residual_of_a_bright_star_is_suspect_but_its_variation_is_not(wcs):
    star = draw(SHAPE, [100, 300], [200, 200], [1e6, 1e6], SIGMA)
    image = MaskedImage(star, star + 100.0, np.zeros(SHAPE, np.uint16))
    difference, psf = white(SHAPE, SIGMA, [(100, 200, 0.01 * 1e6), (300, 200, 0.1 * 1e6)])
    sources = run(difference, psf, wcs, science=image, template=image)
    assert list(sources["pixelFlags_suspectCenter"]) == [True, False]
    np.testing.assert_allclose(sources["templateFlux"], 1e6, rtol=0.01)
    np.testing.assert_allclose(sources["scienceFlux"], 1e6, rtol=0.01)


def test_a_source_at_the_edge_is_flagged_and_has_a_position(wcs):
    difference, psf = white(SHAPE, SIGMA, [(2, 200, 100 * UNIT), (200, 417, 100 * UNIT)])
    sources = run(difference, psf, wcs)
    assert sources["pixelFlags_edge"].all()
    assert sources["apFlux_flag_apertureTruncated"].all()
    for name in ("x", "y", "ra", "dec"):
        assert np.isfinite(sources[name]).all()


def test_without_peaks_the_table_is_empty_and_has_all_columns(wcs):
    full = run(*white(SHAPE, SIGMA, [(100, 100, 50 * UNIT)]), wcs)
    empty = run(*white(SHAPE, SIGMA, seed=11), wcs)
    assert len(empty) == 0
    assert [(c, empty[c].dtype) for c in empty.colnames] == [(c, full[c].dtype) for c in full.colnames]
    assert is_disqualified(empty).shape == (0,)
