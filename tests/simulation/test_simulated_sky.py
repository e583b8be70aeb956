import galsim
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, match_coordinates_sky
from astropy.table import Table

from prompt_processing.simulation.optics import PsfField, to_pixels
from prompt_processing.simulation.truth import read_psf, read_wcs


@pytest.fixture(scope="module")
def pointed(exposures):
    return exposures[np.isin(exposures["kind"], ["science", "template"])]


def bright_isolated(stars: Table, shape: tuple[int, int]) -> Table:
    ny, nx = shape
    chosen = []
    for star in stars[(stars["electrons"] > 5e4) & (stars["electrons"] < 4e6)]:
        distance = np.hypot(stars["x"] - star["x"], stars["y"] - star["y"])
        neighbours = stars["electrons"][(distance > 0) & (distance < 30)].sum()
        inside = 30 < star["x"] < nx - 30 and 30 < star["y"] < ny - 30
        if inside and neighbours < 0.03 * star["electrons"]:
            chosen.append(star)
    return Table(rows=chosen, names=stars.colnames)


def moments(image: np.ndarray, x: float, y: float) -> galsim.hsm.ShapeData:
    """Return adaptive moments of a star (0-based pixels), sky taken from a ring around it."""
    column, row, half = round(x), round(y), 18
    stamp = image[row - half : row + half + 1, column - half : column + half + 1]
    edge = np.concatenate([stamp[0], stamp[-1], stamp[:, 0], stamp[:, -1]])
    drawn = galsim.ImageD(stamp - np.median(edge), xmin=column - half, ymin=row - half)
    return galsim.hsm.FindAdaptiveMom(drawn, guess_centroid=galsim.PositionD(x, y), strict=False)


def test_stars_are_where_the_true_wcs_says(night, charge, pointed):
    offsets = []
    for row in pointed:
        stars = Table.read(night / "truth" / row["obs_id"] / "stars.ecsv")
        image, wcs = charge(row["obs_id"]), read_wcs(night / "truth", row["obs_id"])
        for star in bright_isolated(stars, image.shape):
            found = moments(image, star["x"], star["y"])
            x, y = wcs.all_world2pix(star["ra"], star["dec"], 0)
            if found.error_message == "":
                offsets.append((found.moments_centroid.x - x, found.moments_centroid.y - y))
    assert len(offsets) >= 50
    # Neighbours pull at single stars, but they do so in all directions.
    assert np.median(np.hypot(*np.transpose(offsets))) < 0.1
    assert np.abs(np.median(offsets, axis=0)).max() < 0.02


def test_stars_have_the_true_flux(night, charge, pointed, exposures):
    row = pointed[-1]
    flat = exposures[exposures["kind"] == "flat"][-1]
    response = charge(flat["obs_id"]) / flat["flat_electrons"]
    stars = Table.read(night / "truth" / row["obs_id"] / "stars.ecsv")
    image, psf = charge(row["obs_id"]) / response, read_psf(night / "truth", row["obs_id"])
    ratios = []
    for star in bright_isolated(stars, image.shape):
        x, y = round(star["x"]), round(star["y"])
        data = image[y - 15 : y + 16, x - 15 : x + 16]
        stamp = galsim.ImageD(31, 31, scale=1.0)
        offset = galsim.PositionD(star["x"] - x, star["y"] - y)
        psf.profile(star["x"], star["y"]).drawImage(stamp, method="no_pixel", offset=offset)
        terms = np.stack([stamp.array.ravel(), np.ones(data.size)], axis=1)
        ratios.append(np.linalg.lstsq(terms, data.ravel())[0][0] / star["electrons"])
        assert star["electrons"] == pytest.approx(star["flux"] * row["electron_per_njy"])
        assert star["mag"] == pytest.approx(31.4 - 2.5 * np.log10(star["flux"]))
    assert np.median(ratios) == pytest.approx(1.0, abs=0.02)


def test_psf_varies_as_the_truth_says(night, charge, pointed):
    row = pointed[-1]
    stars = Table.read(night / "truth" / row["obs_id"] / "stars.ecsv")
    psf = read_psf(night / "truth", row["obs_id"])
    image = charge(row["obs_id"])
    measured, drawn = [], []
    for star in bright_isolated(stars, image.shape):
        stamp = galsim.ImageD(51, 51, scale=1.0)
        psf.profile(star["x"], star["y"]).drawImage(stamp, method="no_pixel")
        measured.append(moments(image, star["x"], star["y"]).moments_sigma)
        drawn.append(galsim.hsm.FindAdaptiveMom(stamp).moments_sigma)
    assert np.median(np.array(measured) / drawn) == pytest.approx(1.0, abs=0.02)


def test_psf_field_has_the_extent_that_was_asked_for():
    psf = PsfField.draw(np.random.default_rng(2), (4000, 4072), fwhm=9.0, variation=0.06, ellipticity=0.04)
    y, x = np.mgrid[0:4000:50j, 0:4072:50j]
    fwhm, e1, e2 = psf.parameters(x, y)
    assert np.abs(fwhm / 9.0 - 1).max() == pytest.approx(0.06, rel=0.05)
    assert np.hypot(e1, e2).max() == pytest.approx(0.04, rel=0.05)


def test_visits_and_templates_have_their_seeing(pointed):
    fwhm = np.array([row["psf_fwhm"][0] for row in pointed])
    science = pointed["kind"] == "science"
    assert ((fwhm[science] > 8.5) & (fwhm[science] < 9.6)).all()
    assert ((fwhm[~science] > 7.2) & (fwhm[~science] < 7.8)).all()


def test_orientation_is_the_one_that_was_agreed(night, pointed):
    row = pointed[-1]
    wcs = read_wcs(night / "truth", row["obs_id"])
    ny, nx = row["ny"], row["nx"]
    centre = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    up = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2 + 50)
    right = wcs.pixel_to_world((nx - 1) / 2 + 50, (ny - 1) / 2)
    # +y at position angle ROTPA + 180 deg, and +x 90 deg further towards north: ordinary sky parity.
    turned = (centre.position_angle(up).deg - row["rotation"] - 180 + 180) % 360 - 180
    assert abs(turned) < 0.31
    assert (centre.position_angle(up).deg - centre.position_angle(right).deg) % 360 == pytest.approx(
        90, abs=0.1
    )
    assert centre.separation(up).arcsec / 50 == pytest.approx(0.095695, rel=1e-3)


def test_pointing_is_as_wrong_as_promised(pointed):
    header = SkyCoord(pointed["ra"], pointed["dec"], unit="deg")
    true = SkyCoord(pointed["true_ra"], pointed["true_dec"], unit="deg")
    error = header.separation(true).arcsec
    assert ((error > 10) & (error < 20)).all()
    turned = (pointed["true_rotation"] - pointed["rotation"] + 180) % 360 - 180
    assert (np.abs(turned) <= 0.3).all()
    assert np.abs(turned).max() > 0.02


def test_distortion_grows_with_the_cube_of_the_distance(night, pointed):
    row = pointed[-1]
    wcs = read_wcs(night / "truth", row["obs_id"])
    crpix = wcs.wcs.crpix - 1
    corner = np.array([[0.0, 0.0]])
    linear = wcs.wcs_pix2world(corner, 0)
    moved = wcs.wcs_world2pix(wcs.all_pix2world(corner, 0), 0)[0] - wcs.wcs_world2pix(linear, 0)[0]
    assert np.hypot(*moved) / np.hypot(*(corner[0] - crpix)) == pytest.approx(8e-4, rel=0.02)


def test_templates_cover_the_visits(night, pointed):
    templates = [read_wcs(night / "truth", row["obs_id"]) for row in pointed[pointed["kind"] == "template"]]
    for row in pointed[pointed["kind"] == "science"]:
        ny, nx = row["ny"], row["nx"]
        edge_x = np.concatenate([np.linspace(0, nx - 1, 9), np.linspace(0, nx - 1, 9), [0] * 9, [nx - 1] * 9])
        edge_y = np.concatenate([[0] * 9, [ny - 1] * 9, np.linspace(0, ny - 1, 9), np.linspace(0, ny - 1, 9)])
        ra, dec = read_wcs(night / "truth", row["obs_id"]).all_pix2world(edge_x, edge_y, 0)
        covered = np.zeros(ra.size, dtype=int)
        for wcs in templates:
            x, y = to_pixels(wcs, ra, dec)
            covered += (x > 10) & (x < nx - 11) & (y > 10) & (y < ny - 11)
        assert covered.min() >= 1


def test_refcat_lists_the_brighter_stars_with_motion(night, pointed):
    row = pointed[-1]
    refcat = Table.read(night / "refcat.ecsv")
    stars = Table.read(night / "truth" / row["obs_id"] / "stars.ecsv")
    assert len(np.unique(refcat["id"])) == len(refcat)
    years = 2026.17 - refcat.meta["epoch"]
    cosine = np.cos(np.deg2rad(refcat["dec"]))
    moved = SkyCoord(
        refcat["ra"] + years * refcat["pm_ra"] / 3.6e6 / cosine,
        refcat["dec"] + years * refcat["pm_dec"] / 3.6e6,
    )
    still = SkyCoord(refcat["ra"], refcat["dec"])
    truth = SkyCoord(stars["ra"], stars["dec"])
    index, distance, _ = match_coordinates_sky(truth, moved)
    matched = distance < 0.08 * u.arcsec
    bright = stars["electrons"] > 2e4
    assert matched[bright].mean() == pytest.approx(0.85, abs=0.12)
    assert np.median(distance[matched].arcsec) < 0.02
    unmoved = truth[matched].separation(still[index[matched]]).arcsec
    assert np.median(unmoved) > 1.5 * np.median(distance[matched].arcsec)
    difference = refcat["r_mag"][index[matched]] - stars["mag"][matched]
    assert np.median(np.abs(difference)) < 0.03
    pull = difference / refcat["r_magErr"][index[matched]]
    # By the median, because a missing star can be near another one.
    assert 0.7 < 1.4826 * np.median(np.abs(pull)) < 1.3


def test_there_are_enough_stars(night, pointed):
    for row in pointed:
        stars = Table.read(night / "truth" / row["obs_id"] / "stars.ecsv")
        assert (stars["electrons"] > 3e4).sum() >= 40
        assert len(stars) >= 100
