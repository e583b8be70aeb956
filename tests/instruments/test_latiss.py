import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from lsst.pipe.base import Instrument

from prompt_processing.domain.errors import ConfigError, HeaderError
from prompt_processing.instruments.cameras import LATISS, get_camera
from prompt_processing.instruments.formatters import RawFormatter
from prompt_processing.instruments.latiss import Latiss
from prompt_processing.instruments.pointing import predicted_wcs
from prompt_processing.instruments.regions import detector_region, sky_polygon

SHAPE = (4000, 4072)


@pytest.mark.parametrize(
    ("physical", "band"),
    [
        ("SDSSu_65mm~empty", "u"), ("SDSSy_65mm~empty", "y"), ("empty~SDSSi_65mm", "i"),
        ("SDSSg~holo4_003", "g"),
        ("BG40~empty", "g"), ("RG610~unknown", "r"), ("KPNO_406_828nm~empty", "z"), ("empty~empty", "white"),
        ("empty~ronchi90lpmm", "white"), ("SDSSz_150mm~empty", "z"), ("Halpha~empty", "unknown"),
        ("unknown~unknown", "unknown"),
    ],
)  # fmt: skip
def test_bands(physical, band):
    assert LATISS.band_of(physical) == band


def test_the_middleware_finds_the_instrument_in_a_repository(butler):
    instrument = Instrument.fromName("LATISS", butler.registry)
    assert isinstance(instrument, Latiss)
    assert instrument.getRawFormatter({}) is RawFormatter
    (detector,) = butler.query_dimension_records("detector", instrument="LATISS")
    assert (detector.id, detector.full_name, detector.purpose) == (0, "RXX_S00", "SCIENCE")
    filters = butler.query_dimension_records("physical_filter", instrument="LATISS")
    bands = {record.name: record.band for record in filters}
    assert [bands[f"SDSS{band}_65mm~empty"] for band in "ugrizy"] == list("ugrizy")
    assert bands["empty~SDSSg_65mm"] == "g"


def test_registering_again_changes_nothing(butler):
    def everything():
        elements = ("instrument", "detector", "physical_filter", "visit_system")
        return {name: butler.query_dimension_records(name, instrument="LATISS") for name in elements}

    before = everything()
    Latiss().register(butler.registry)
    assert everything() == before


def test_instruments_are_known_by_name():
    assert get_camera("LATISS").name == Latiss.getName() == "LATISS"
    with pytest.raises(ConfigError, match=r"HSC.*LATISS"):
        get_camera("HSC")


@pytest.mark.parametrize("rotation", [0.0, 30.0, 98.5, 180.0, 300.0])
@pytest.mark.parametrize(("ra", "dec"), [(80.0, -30.0), (0.0, 0.0), (359.99, 85.0)])
def test_the_predicted_wcs_has_the_orientation_of_the_header(ra, dec, rotation):
    wcs = predicted_wcs(ra, dec, rotation, SHAPE, LATISS.pixel_scale)
    x, y = (SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2
    boresight, up, right = (
        SkyCoord(*wcs.all_pix2world(x + dx, y + dy, 0), unit=u.deg) for dx, dy in ((0, 0), (0, 100), (100, 0))
    )
    assert boresight.separation(SkyCoord(ra, dec, unit=u.deg)).arcsec < 1e-6
    assert boresight.separation(up).arcsec == pytest.approx(9.5695, rel=1e-5)
    # +y has the position angle ROTPA + 180 deg; from +y to +x is clockwise on the sky (ordinary parity)
    angle_up, angle_right = (boresight.position_angle(other).deg for other in (up, right))
    assert (angle_up - rotation - 180.0 + 180.0) % 360 - 180.0 == pytest.approx(0.0, abs=0.02)
    assert (angle_up - angle_right) % 360 == pytest.approx(90.0, abs=0.01)


def test_boresight_is_at_the_fits_pixel_of_the_convention():
    assert list(predicted_wcs(1.0, 2.0, 3.0, SHAPE, 0.1).wcs.crpix) == [2036.5, 2000.5]


def test_a_region_covers_the_whole_detector_wherever_it_looks():
    for ra, dec in ((10.0, 0.0), (0.0, 89.99), (359.99, -45.0)):
        wcs = predicted_wcs(ra, dec, 12.0, SHAPE, LATISS.pixel_scale)
        region = detector_region(wcs, SHAPE, padding=0.0)
        rng = np.random.default_rng(4)
        pixels = rng.uniform([-0.49, -0.49], [SHAPE[1] - 0.51, SHAPE[0] - 0.51], (100, 2))
        sky = np.radians(wcs.wcs_pix2world(pixels, 0))
        assert region.contains(sky[:, 0], sky[:, 1]).all()


def test_corners_that_are_no_region_are_refused():
    with pytest.raises(HeaderError, match="not on the sky"):
        sky_polygon(np.array([np.nan, 1.0, 2.0]), np.array([0.0, 1.0, 0.0]))
    with pytest.raises(HeaderError, match="convex"):
        sky_polygon(np.array([1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0]))
