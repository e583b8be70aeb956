"""LSSTCam: focal plane, headers, and raws of both vendors."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from prompt_processing.arrivals.pointers import detector_number
from prompt_processing.domain.errors import EventError, HeaderError, RawError
from prompt_processing.domain.ids import detector_exposure_id, source_id
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.images.amplifier import assemble
from prompt_processing.instruments.cameras import LSSTCAM
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from prompt_processing.instruments.lsstcam import LsstCam
from prompt_processing.instruments.lsstcam_layout import places
from prompt_processing.instruments.observation import observation_info
from prompt_processing.instruments.pointing import predicted_wcs
from prompt_processing.instruments.raw import read_raw
from prompt_processing.instruments.regions import detector_region, visit_region
from prompt_processing.simulation.cameras import simulated_detectors
from support import latiss_files as files
from support import lsstcam_files

CAMERA = LSSTCAM
MIDDLE = 94


def header(**cards):
    fields = {
        "INSTRUME": "LSSTCam", "TELESCOP": "Simonyi Survey Telescope", "RAFTBAY": "R22", "CCDSLOT": "S11",
        "OBSID": "MC_O_20250624_000106", "DAYOBS": "20250624", "FILTER": "r_57", "GRATING": None,
    }  # fmt: skip
    return files.primary_header(**{**fields, **cards})


def test_there_are_189_detectors_of_two_vendors():
    vendors = [place.vendor for place in places()]
    assert (len(vendors), vendors.count("ITL"), vendors.count("E2V")) == (189, 72, 117)
    assert {place.raft: place.vendor for place in places()}["R20"] == "ITL"
    assert CAMERA.detector_shape(MIDDLE) == (4004, 4096)
    assert CAMERA.detector_shape(0) == (4000, 4072)


@pytest.mark.parametrize(
    ("number", "name"), [(0, "R01_S00"), (94, "R22_S11"), (95, "R22_S12"), (188, "R43_S22")]
)
def test_numbers_and_names(number, name):
    assert CAMERA.raw_name(number) == name
    assert CAMERA.number_of(name) == number
    obs_id = "MC_O_20250624_000106"
    key = parse_raw_key(f"LSSTCam/20250624/{obs_id}/{obs_id}_{name}.fits")
    assert detector_number(key) == number


@pytest.mark.parametrize("name", ["R00_SG0", "R04_SW1", "R22_S33"])
def test_what_is_no_science_detector_is_refused(name):
    assert CAMERA.number_of(name) is None
    key = parse_raw_key(f"LSSTCam/20250624/MC_O_20250624_000106/MC_O_20250624_000106_{name}.fits")
    with pytest.raises(RawError, match=name):
        detector_number(key)


def test_detectors_do_not_overlap_and_span_three_and_a_half_degrees():
    corners = []
    for place in places():
        x, y = CAMERA.offset(place.number)
        ny, nx = CAMERA.detector_shape(place.number)
        corners.append((x - nx / 2, x + nx / 2, y - ny / 2, y + ny / 2))
    left, right, low, high = np.array(corners).T
    apart = (
        (left[:, None] >= right) | (left >= right[:, None]) | (low[:, None] >= high) | (low >= high[:, None])
    )
    assert apart.sum() == 189 * 188
    width = (right.max() - left.min()) * CAMERA.pixel_scale / 3600
    assert width == pytest.approx(3.5, abs=0.05)


def test_the_simulator_describes_the_same_focal_plane_in_its_own_words():
    for place, simulated in zip(places(), simulated_detectors("LSSTCam", range(189)), strict=True):
        assert (simulated.name, simulated.vendor) == (place.name, place.vendor)
        assert simulated.place == pytest.approx(CAMERA.offset(place.number))


def test_the_detector_in_the_middle_looks_at_the_boresight():
    assert CAMERA.centre(MIDDLE, 150.0, 2.0, 37.0) == (150.0, 2.0)
    assert CAMERA.centre(MIDDLE, 150.0, 2.0, None) == (150.0, 2.0)


def test_with_the_camera_the_detectors_turn_around_the_boresight():
    boresight = SkyCoord(150.0, -30.0, unit="deg")
    at = {
        rotation: SkyCoord(*CAMERA.centre(95, 150.0, -30.0, rotation), unit="deg") for rotation in (0.0, 90.0)
    }
    distance = 4225 * 0.2
    for sky in at.values():
        assert boresight.separation(sky).arcsec == pytest.approx(distance, rel=1e-4)
    # At angle 0 the camera's x axis points east, and with the angle it turns from there to the south.
    assert boresight.position_angle(at[0.0]).deg == pytest.approx(90.0, abs=0.1)
    assert boresight.position_angle(at[90.0]).deg == pytest.approx(180.0, abs=0.1)


def test_neighbours_are_neighbours_on_the_sky():
    regions = [
        detector_region(CAMERA.predicted_wcs(number, 150.0, -30.0, 20.0), CAMERA.detector_shape(number), 0.0)
        for number in (94, 95, 96)
    ]
    assert regions[0].isDisjointFrom(regions[1])
    padded = detector_region(CAMERA.predicted_wcs(94, 150.0, -30.0, 20.0), (4004, 4096), 60.0)
    assert padded.intersects(regions[1])


def test_bands():
    bands = [CAMERA.band_of(name) for name in ("u_24", "g_6", "r_57", "i_39", "z_20", "y_10", "r_03", "ph_5")]
    assert bands == ["u", "g", "r", "i", "z", "y", "r", "unknown"]


def test_a_header_tells_detector_and_ids():
    found = observation_info(header(), "a.fits")
    assert (found.instrument, found.detector_num, found.physical_filter) == ("LSSTCam", 94, "r_57")
    assert (found.exposure_id, found.observation_id) == (2025062400106, "MC_O_20250624_000106")
    assert observation_info(header(FILTER="r_57~empty"), "a.fits").physical_filter == "r_57"
    with pytest.raises(HeaderError, match=r"a\.fits: card CCDSLOT is 'S33'"):
        observation_info(header(CCDSLOT="S33"), "a.fits")


def test_ids_of_all_detectors_differ_and_fit():
    numbers = {source_id(detector_exposure_id(2025062400106, detector), 5) for detector in CAMERA.detectors}
    assert len(numbers) == 189
    assert max(numbers) < 2**63


def test_a_raw_is_ingested_where_its_detector_looks(butler, tmp_path):
    LsstCam().register(butler.registry)
    path = files.write(tmp_path / "a.fits", header(CCDSLOT="S12"))
    ref, observation = ingest_raw(butler, path, run="LSSTCam/raw")
    define_visit(butler, observation, (80, 168))
    (record,) = butler.query_dimension_records("visit_detector_region", instrument="LSSTCam")
    assert ref.dataId["detector"] == record.detector == 95
    assert len(list(butler.query_dimension_records("detector", instrument="LSSTCam"))) == 189
    centre = SkyCoord(*CAMERA.centre(95, 223.75, -20.0, 98.5), unit="deg")
    x, y, z = record.region.getCentroid()
    assert SkyCoord(x, y, z, representation_type="cartesian").separation(centre).arcsec < 1.0


def test_without_an_angle_nobody_knows_where_a_detector_off_the_boresight_looks():
    with pytest.raises(EventError, match="R22_S12"):
        CAMERA.centre(95, 150.0, -30.0, None)


def test_places_and_pixels_agree_with_the_focal_plane_of_a_real_header():
    # Cards of Segment10 of R01_S01 (obs_lsst, lsstCam-MC_O_20250609_000578_R01_S01.yaml): pixel (x, y) of the
    # amplifier is at FP_X = CRVAL1F - y, FP_Y = CRVAL2F - x, pixels from a corner of the focal plane. There
    # FP_X counts along the rows of rafts. DETSEC [509:1,1:2000] of DATASEC [4:512,1:2000] is (513 - x, y).
    crval1f, crval2f = 4126.0, 17527.0
    middle = 2.5 * 12700.0
    detector = CAMERA.number_of("R01_S01")
    ny, nx = CAMERA.detector_shape(detector)
    x, y = CAMERA.offset(detector)
    for column, row in ((1, 1), (509, 2000), (100, 700)):
        amplifier_x, amplifier_y = 513 - column, row
        expected = crval2f - amplifier_x - middle, crval1f - amplifier_y - middle
        # Our rows run against the camera's y axis.
        found = x + column - (nx + 1) / 2, -(y + row - (ny + 1) / 2)
        assert found == pytest.approx(expected, abs=1.0)


def test_pixels_follow_the_header_also_off_the_boresight():
    detector = CAMERA.number_of("R22_S21")
    wcs = CAMERA.predicted_wcs(detector, 150.0, -30.0, 0.0)
    here, up, right = (
        SkyCoord(*wcs.wcs_pix2world(2000 + x, 2000 + y, 0), unit="deg") for x, y in ((0, 0), (0, 99), (99, 0))
    )
    assert here.position_angle(up).deg == pytest.approx(180.0, abs=0.02)
    assert here.position_angle(right).deg == pytest.approx(90.0, abs=0.02)
    assert here.separation(up).arcsec == pytest.approx(99 * 0.2, rel=1e-3)


def test_the_prediction_around_the_detector_agrees_with_the_plane_of_the_boresight():
    shape = CAMERA.detector_shape(0)
    plane = predicted_wcs(150.0, -30.0, 20.0, shape, CAMERA.pixel_scale)
    plane.wcs.crpix = plane.wcs.crpix - CAMERA.offset(0)
    plane.wcs.set()
    corners = np.array([[0, 0], [shape[1], 0], [0, shape[0]], [shape[1], shape[0]]])
    there, ours = (
        SkyCoord(wcs.wcs_pix2world(corners, 0), unit="deg")
        for wcs in (plane, CAMERA.predicted_wcs(0, 150.0, -30.0, 20.0))
    )
    assert there.separation(ours).arcsec.max() < 1.0


def test_the_region_of_a_visit_holds_every_detector_and_little_more():
    region = visit_region(CAMERA, 0.1, -60.0, 40.0, 1.0)
    for detector in CAMERA.detectors:
        wcs = CAMERA.predicted_wcs(detector, 0.1, -60.0, 40.0)
        assert region.contains(detector_region(wcs, CAMERA.detector_shape(detector), padding=0.0))
    radius = region.getBoundingCircle().getOpeningAngle().asDegrees()
    assert radius == pytest.approx(2.06, abs=0.03)


@pytest.mark.parametrize("order", [(94, 78), (78, 94)])
def test_two_detectors_make_one_visit_whichever_comes_first(butler, tmp_path, order):
    LsstCam().register(butler.registry)
    for detector in order:
        raft, slot = CAMERA.raft_and_sensor(detector)
        path = files.write(tmp_path / f"{detector}.fits", header(RAFTBAY=raft, CCDSLOT=slot))
        _, observation = ingest_raw(butler, path, run="LSSTCam/raw")
        define_visit(butler, observation, (80, 168))
    (visit,) = butler.query_dimension_records("visit", instrument="LSSTCam")
    regions = butler.query_dimension_records("visit_detector_region", instrument="LSSTCam", visit=visit.id)
    assert sorted(region.detector for region in regions) == [78, 94]
    assert all(visit.region.contains(region.region) for region in regions)
    assert not regions[0].region.intersects(regions[1].region)
    assert visit.region == visit_region(CAMERA, 223.75, -20.0, 98.5, 60.0)


@pytest.mark.parametrize("vendor", ["E2V", "ITL"])
def test_a_raw_is_put_together_by_its_header(tmp_path, vendor):
    path, pattern = lsstcam_files.write_pattern(tmp_path / "raw.fits", vendor)
    raw = read_raw(path)
    assert raw.shape == pattern.shape == {"E2V": (4004, 4096), "ITL": (4000, 4072)}[vendor]
    image = assemble(raw.amplifiers, [amplifier.pixels[amplifier.data] for amplifier in raw.amplifiers])
    assert np.array_equal(image, pattern)
    overscan = {amplifier.pixels[amplifier.overscan].shape[1] for amplifier in raw.amplifiers}
    assert overscan == {{"E2V": 54, "ITL": 64}[vendor]}
