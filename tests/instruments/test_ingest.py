import json
import shutil

import astropy.units as u
import pytest
from astropy.coordinates import SkyCoord
from lsst.daf.butler import Butler
from lsst.sphgeom import LonLat, UnitVector3d

from prompt_processing.domain.errors import ConflictError, HeaderError, RawError, WrongCameraError
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from support import latiss_files as files

SHAPE = (2 * files.NY, 8 * files.NX)
EXPOSURE = 2024062400106


def inside(region, ra, dec):
    return region.contains(UnitVector3d(LonLat.fromDegrees(ra, dec)))


@pytest.fixture
def raw_file(tmp_path):
    return files.write(tmp_path / "AT_O_20240624_000106_R00_S00.fits")


@pytest.mark.parametrize("transfer", ["copy", "direct", "hardlink", "symlink"])
def test_an_ingested_raw_can_be_read_whole_and_its_header_alone(butler, raw_file, transfer):
    ref, _ = ingest_raw(butler, raw_file, run="LATISS/raw", transfer=transfer)
    raw = butler.get("raw", instrument="LATISS", exposure=EXPOSURE, detector=0, collections="LATISS/raw")
    assert raw.shape == SHAPE
    assert len(raw.amplifiers) == 16
    assert butler.get(ref.makeComponentRef("header"))["OBSID"] == "AT_O_20240624_000106"


def test_a_compressed_raw_can_be_read(butler, tmp_path):
    path = files.write(tmp_path / "AT_O_20240624_000106_R00_S00.fits.fz", compress=True)
    ref, _ = ingest_raw(butler, path, run="LATISS/raw")
    assert butler.get(ref).shape == SHAPE


def test_the_exposure_record_tells_what_the_header_does(butler, raw_file):
    ingest_raw(butler, raw_file, run="LATISS/raw")
    (record,) = butler.query_dimension_records("exposure", instrument="LATISS", exposure=EXPOSURE)
    assert (record.obs_id, record.group) == ("AT_O_20240624_000106", "2024-06-25T01:26:31.895#1")
    assert (record.day_obs, record.seq_num, record.seq_start, record.seq_end) == (20240624, 106, 106, 106)
    assert (record.physical_filter, record.observation_type) == ("SDSSr_65mm~empty", "science")
    assert (record.tracking_ra, record.tracking_dec, record.sky_angle) == (223.75, -20.0, 98.5)
    assert (record.exposure_time, record.dark_time) == (30.0, 30.2407)
    assert (record.science_program, record.observation_reason) == ("BLOCK-1", "survey")
    assert record.zenith_angle == pytest.approx(90.0 - 79.85583534052326)
    assert record.timespan.begin.tai.isot[:23] == "2024-06-25T01:27:55.160"
    assert record.timespan.end.tai.isot[:23] == "2024-06-25T01:28:25.400"
    (day,) = butler.query_dimension_records("day_obs", instrument="LATISS", day_obs=20240624)
    assert day.timespan.contains(record.timespan)


def test_ingesting_again_changes_nothing(butler, raw_file):
    first, observation = ingest_raw(butler, raw_file, run="LATISS/raw")
    define_visit(butler, observation, SHAPE)
    second, observation = ingest_raw(butler, raw_file, run="LATISS/raw")
    assert define_visit(butler, observation, SHAPE) == EXPOSURE
    assert first.id == second.id
    assert len(butler.query_datasets("raw", collections="LATISS/raw")) == 1
    assert len(butler.query_dimension_records("visit", instrument="LATISS")) == 1


def test_the_same_raw_has_the_same_id_in_every_repository(butler, new_repository, raw_file, tmp_path):
    shutil.copytree(new_repository, tmp_path / "other")
    ref, _ = ingest_raw(butler, raw_file, run="LATISS/raw")
    with Butler.from_config(tmp_path / "other", writeable=True) as other:
        assert ingest_raw(other, raw_file, run="LATISS/raw")[0].id == ref.id
        assert ingest_raw(other, raw_file, run="LATISS/again")[0].id != ref.id


def test_another_exposure_under_the_same_id_is_refused(butler, raw_file, tmp_path):
    ingest_raw(butler, raw_file, run="LATISS/raw")
    other = files.write(tmp_path / "other.fits", files.primary_header(RA=10.0))
    with pytest.raises(ConflictError, match=r"other\.fits.*2024062400106"):
        ingest_raw(butler, other, run="LATISS/raw")


def test_the_visit_joins_exposure_and_detector(butler, raw_file):
    _, observation = ingest_raw(butler, raw_file, run="LATISS/raw")
    visit = define_visit(butler, observation, SHAPE)
    assert visit == EXPOSURE
    with butler.query() as query:
        (row,) = query.where(instrument="LATISS", exposure=EXPOSURE, detector=0).data_ids(
            ["visit", "detector"]
        )
    assert row["visit"] == visit
    (record,) = butler.query_dimension_records("visit", instrument="LATISS", visit=visit)
    assert (record.name, record.physical_filter) == ("AT_O_20240624_000106", "SDSSr_65mm~empty")


def test_the_visit_region_is_the_footprint_with_a_margin(butler, raw_file):
    _, observation = ingest_raw(butler, raw_file, run="LATISS/raw")
    define_visit(butler, observation, SHAPE, padding=60.0)
    (record,) = butler.query_dimension_records(
        "visit_detector_region", instrument="LATISS", visit=EXPOSURE, detector=0
    )
    centre = SkyCoord(223.75, -20.0, unit="deg")
    # +y points to the position angle ROTPA + 180 deg; the detector is 80 px, 7.66 arcsec, high
    half = 0.095695 * SHAPE[0] / 2
    for angle, reach in ((98.5 + 180, half), (98.5, half), (98.5 + 90, 0.095695 * SHAPE[1] / 2)):
        within = centre.directional_offset_by(angle * u.deg, (reach + 59.9) * u.arcsec)
        beyond = centre.directional_offset_by(angle * u.deg, (reach + 60.1) * u.arcsec)
        assert inside(record.region, within.ra.deg, within.dec.deg)
        assert not inside(record.region, beyond.ra.deg, beyond.dec.deg)


def test_a_filter_nobody_knows_is_registered_with_its_raw(butler, tmp_path):
    path = files.write(tmp_path / "a.fits", files.primary_header(FILTER="SDSSz_99", GRATING="holo4_003"))
    _, observation = ingest_raw(butler, path, run="LATISS/raw")
    assert observation.physical_filter == "SDSSz_99~holo4_003"
    records = butler.query_dimension_records("physical_filter", instrument="LATISS")
    assert {r.name: r.band for r in records}["SDSSz_99~holo4_003"] == "z"


@pytest.mark.parametrize("kind", ["BIAS", "DARK", "FLAT"])
def test_calibration_raws_need_no_position_and_no_group(butler, tmp_path, kind):
    header = files.primary_header(
        IMGTYPE=kind, RA=None, DEC=None, ROTPA=None, ELSTART=None, AZSTART=None, GROUPID=None, EXPTIME=0.0,
        DATE_END="2024-06-25T01:27:55.160",
    )  # fmt: skip
    _, observation = ingest_raw(butler, files.write(tmp_path / "a.fits", header), run="LATISS/raw")
    (record,) = butler.query_dimension_records("exposure", instrument="LATISS", exposure=EXPOSURE)
    assert record.observation_type == kind.lower()
    assert record.tracking_ra is None
    assert record.group == str(EXPOSURE)
    assert not record.timespan.isEmpty()
    with pytest.raises(HeaderError, match=r"a\.fits.*position"):
        define_visit(butler, observation, SHAPE)


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz"])
def test_the_group_comes_from_the_sidecar_when_the_header_has_none(butler, tmp_path, name):
    path = files.write(tmp_path / name, files.primary_header(GROUPID=None))
    (tmp_path / "a.json").write_text(json.dumps({"GROUPID": "2024-06-25T01:00:00.000"}))
    ref, observation = ingest_raw(butler, path, run="LATISS/raw")
    assert observation.exposure_group == "2024-06-25T01:00:00.000"
    # the copy in the repository has no sidecar: the group comes with the data id
    assert butler.get(ref).header["GROUPID"] == "2024-06-25T01:00:00.000"


def test_the_group_of_a_sidecar_wins_in_the_butler_too(butler, raw_file):
    raw_file.with_suffix(".json").write_text('{"GROUPID": "another"}')
    ref, observation = ingest_raw(butler, raw_file, run="LATISS/raw")
    assert observation.exposure_group == "another"
    assert butler.get(ref).header["GROUPID"] == "another"
    assert butler.get(ref.makeComponentRef("header"))["GROUPID"] == "another"


def test_a_science_raw_without_any_group_is_refused(butler, tmp_path):
    path = files.write(tmp_path / "a.fits", files.primary_header(GROUPID=None))
    with pytest.raises(HeaderError, match=r"a\.fits: card GROUPID"):
        ingest_raw(butler, path, run="LATISS/raw")


def test_files_that_cannot_be_ingested_leave_nothing_behind(butler, tmp_path):
    empty = tmp_path / "empty.fits"
    empty.touch()
    for path, error in (
        (empty, RawError),
        (files.write(tmp_path / "other.fits", files.primary_header(INSTRUME="HSC")), WrongCameraError),
        (files.write(tmp_path / "none.fits", files.primary_header(INSTRUME=None)), HeaderError),
        (files.write(tmp_path / "bad.fits", files.primary_header(EXPTIME="long")), HeaderError),
    ):
        with pytest.raises(error, match=path.name):
            ingest_raw(butler, path, run="LATISS/raw")
    assert not butler.query_dimension_records("exposure", instrument="LATISS", explain=False)
