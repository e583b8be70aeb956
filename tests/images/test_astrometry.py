import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from prompt_processing.domain.errors import AstrometryError
from prompt_processing.images.astrometry import solve
from prompt_processing.instruments.pointing import predicted_wcs

SCALE = 0.095695
FULL, SMALL = (4000, 4072), (500, 512)
RA, DEC, ROTATION = 150.1, -25.3, 30.0


class Field:
    """Stars in an image whose WCS differs from the prediction, and their catalogue."""

    def __init__(
        self, shape, n, seed, *, offset=(15.0, -10.0), rotation_error=0.7, mirrored=False, ra=RA, dec=DEC
    ):
        rng = np.random.default_rng(seed)
        self.shape = ny, nx = shape
        self.wcs = predicted_wcs(
            (ra + offset[0] / 3600 / np.cos(np.radians(dec))) % 360, dec + offset[1] / 3600,
            ROTATION + rotation_error, shape, SCALE,
        )  # fmt: skip
        if mirrored:
            self.wcs.wcs.cd = self.wcs.wcs.cd * [-1, 1]
        self.predicted = predicted_wcs(ra, dec, ROTATION, shape, 0.0957)
        pad = 800
        count = int(n * (nx + 2 * pad) * (ny + 2 * pad) / (nx * ny))
        x, y = rng.uniform(-pad, nx + pad, count), rng.uniform(-pad, ny + pad, count)
        magnitude = 16 + rng.exponential(2, count)
        sky = self.truth(x, y)
        known = rng.random(count) > 0.15
        self.refcat = Table(
            {"ra": sky[0][known], "dec": sky[1][known], "mag": (magnitude + rng.normal(0, 0.1, count))[known]}
        )
        seen = (x > 0) & (x < nx) & (y > 0) & (y < ny) & (rng.random(count) > 0.1)
        self.common = int((seen & known).sum())
        false = int(0.1 * n)
        self.x = np.r_[x[seen] + rng.normal(0, 0.1, seen.sum()), rng.uniform(0, nx, false)]
        self.y = np.r_[y[seen] + rng.normal(0, 0.1, seen.sum()), rng.uniform(0, ny, false)]
        self.flux = 10 ** (-0.4 * np.r_[magnitude[seen], 16 + rng.exponential(2, false)])

    def truth(self, x, y):
        """Sky of a pixel, with a cubic distortion of 1.6 pixels in the corner of the full detector."""
        ny, nx = self.shape
        u, v = (x - nx / 2) / 2000, (y - ny / 2) / 2000
        stretch = 1.6 * (u * u + v * v)
        return self.wcs.all_pix2world(x + stretch * u, y + stretch * v, 0)

    def solve(self):
        error = np.full(self.x.size, 0.1)
        return solve(self.x, self.y, self.flux, error, self.refcat, self.predicted, self.shape)

    def error(self, wcs):
        """Distance of the solution from the truth over the image [arcsec]."""
        ny, nx = self.shape
        x, y = (a.ravel() for a in np.meshgrid(np.linspace(5, nx - 5, 15), np.linspace(5, ny - 5, 15)))
        ra, dec = self.truth(x, y)
        found = wcs.all_pix2world(x, y, 0)
        return 3600 * np.hypot((found[0] - ra) * np.cos(np.radians(dec)), found[1] - dec)


@pytest.mark.parametrize(
    ("shape", "n", "limit"), [(FULL, 3000, 0.01), (FULL, 300, 0.02), (SMALL, 40, 0.02), (SMALL, 18, 0.03)]
)
def test_wcs_is_recovered_near_the_prediction(shape, n, limit):
    field = Field(shape, n, seed=2)
    solution = field.solve()
    assert field.error(solution.wcs).max() < limit
    assert 0.85 * field.common <= solution.n_used <= field.common + 2
    assert solution.offset_arcsec == pytest.approx(np.hypot(15, 10), abs=0.2)
    assert abs(solution.rotation_error) == pytest.approx(0.7, abs=0.05)
    assert not solution.mirrored
    assert solution.rms_arcsec < 0.012
    # The stars named as used are the right pairs.
    row = field.refcat[solution.references]
    sky = field.truth(field.x[solution.detections], field.y[solution.detections])
    distance = 3600 * np.hypot((sky[0] - row["ra"]) * np.cos(np.radians(DEC)), sky[1] - row["dec"])
    assert distance.max() < 0.2


@pytest.mark.parametrize(("shape", "n"), [(FULL, 1500), (SMALL, 25)])
@pytest.mark.parametrize(("rotation_error", "mirrored"), [(180.0, False), (77.0, True)])
def test_any_rotation_and_parity_is_solved(shape, n, rotation_error, mirrored):
    field = Field(shape, n, seed=4, rotation_error=rotation_error, mirrored=mirrored)
    solution = field.solve()
    assert field.error(solution.wcs).max() < 0.03
    assert solution.mirrored is mirrored


def test_largest_pointing_error_and_the_wrap_of_right_ascension():
    field = Field(FULL, 500, seed=6, offset=(-50.0, 30.0), rotation_error=-1.9, ra=0.001, dec=60.0)
    solution = field.solve()
    assert field.error(solution.wcs).max() < 0.02
    assert 0 <= solution.wcs.wcs.crval[0] < 360


def test_solution_survives_a_header():
    for n, ctype in ((1000, "RA---TAN-SIP"), (35, "RA---TAN")):
        solution = Field(FULL, n, seed=8).solve()
        assert solution.wcs.wcs.ctype[0] == ctype
        again = WCS(solution.wcs.to_header(relax=True))
        x, y = np.random.default_rng(1).uniform(0, 4000, (2, 50))
        assert np.array_equal(solution.wcs.all_pix2world(x, y, 0), again.all_pix2world(x, y, 0))


@pytest.mark.parametrize(("shape", "n", "seeds"), [(FULL, 800, 1), (SMALL, 40, 4), (SMALL, 15, 6)])
def test_catalogue_of_other_stars_is_refused(shape, n, seeds):
    for seed in range(seeds):
        field = Field(shape, n, seed=seed)
        field.refcat = Field(shape, n, seed=seed + 100).refcat
        with pytest.raises(AstrometryError, match="no convincing match"):
            field.solve()


def test_catalogue_elsewhere_and_empty_images_are_named():
    field = Field(SMALL, 30, seed=1)
    field.refcat["ra"] += 1.0
    with pytest.raises(AstrometryError, match="does not overlap the field: 0 of its"):
        field.solve()
    field.x[4:] = np.nan
    with pytest.raises(AstrometryError, match="4 stars were detected"):
        field.solve()
