import json
import math

import pytest

from prompt_processing.domain.errors import HeaderError, WrongCameraError
from prompt_processing.domain.ids import detector_exposure_id
from prompt_processing.instruments.info import exposure_info, info_from_observation
from prompt_processing.instruments.observation import observation_info
from prompt_processing.instruments.raw import read_raw
from support import latiss_files as files


def translate(**cards):
    return observation_info(files.primary_header(**cards), "night/a.fits")


def test_the_header_of_a_science_image():
    observation = translate()
    assert (observation.instrument, observation.telescope) == ("LATISS", "Rubin Auxiliary Telescope")
    assert observation.exposure_id == 2024062400106
    # 2015-01-01 to 2024-06-25: nine years, the leap days of 2016 and 2020, and 176 days
    days = 9 * 365 + 2 + 176
    assert observation.visit_id == int(f"{days * 86400 + 1 * 3600 + 26 * 60 + 31}8950001")
    assert observation.detector_exposure_id == detector_exposure_id(2024062400106, 0)
    assert (observation.observing_day, observation.observation_counter) == (20240624, 106)
    assert (observation.detector_num, observation.detector_unique_name) == (0, "RXX_S00")
    assert observation.detector_serial == "ITL-3800C-068"
    assert observation.physical_filter == "SDSSr_65mm~empty"
    assert (observation.observation_type, observation.observation_reason) == ("science", "survey")
    assert observation.exposure_time.to_value("s") == 30.0
    assert observation.dark_time.to_value("s") == 30.2407
    assert observation.datetime_begin.tai.isot == "2024-06-25T01:27:55.160"
    assert observation.datetime_end.tai.isot == "2024-06-25T01:28:25.400"
    assert (observation.tracking_radec.ra.deg, observation.tracking_radec.dec.deg) == (223.75, -20.0)
    assert observation.tracking_radec.frame.name == "icrs"
    assert (observation.boresight_rotation_angle.deg, observation.boresight_rotation_coord) == (98.5, "sky")
    assert observation.boresight_airmass == 1.0156
    assert observation.altaz_begin.alt.deg == pytest.approx(79.85583534052326)
    assert observation.pressure.to_value("hPa") == pytest.approx(738.8)
    assert observation.temperature.to_value("deg_C") == pytest.approx(1.575)
    assert observation.has_simulated_content is False
    assert observation.can_see_sky is True
    assert observation.location.geodetic.lat.deg == pytest.approx(-30.244728)


def test_the_header_is_left_as_it_was():
    header = files.primary_header()
    before = header.tostring()
    observation_info(header, "a.fits")
    assert header.tostring() == before


@pytest.mark.parametrize(
    ("imgtype", "kind"),
    [
        ("OBJECT", "science"),
        ("SKYEXP", "science"),
        ("BIAS", "bias"),
        ("DARK", "dark"),
        ("FLAT", "flat"),
        ("CWFS", "cwfs"),
    ],
)
def test_observation_types(imgtype, kind):
    assert translate(IMGTYPE=imgtype).observation_type == kind
    assert translate(IMGTYPE="ENGTEST", OBSTYPE=imgtype).observation_type == kind


@pytest.mark.parametrize(
    ("filter_name", "grating", "physical"),
    [
        ("SDSSr_65mm", "empty_1", "SDSSr_65mm~empty"),
        ("empty_2", "SDSSi_65mm", "empty~SDSSi_65mm"),
        ("empty", "empty", "empty~empty"),
        ("EMPTY_1", "holo4_003", "empty~holo4_003"),
        ("BG40_65mm_1", None, "BG40_65mm_1~unknown"),
        ("SDSSg_65mm", "", "SDSSg_65mm~empty"),
        ("emptyish", "ronchi170lpmm", "emptyish~ronchi170lpmm"),
    ],
)
def test_physical_filters(filter_name, grating, physical):
    assert translate(FILTER=filter_name, GRATING=grating).physical_filter == physical


def test_a_bias_needs_no_filter_but_a_flat_does():
    assert translate(IMGTYPE="BIAS", FILTER=None).physical_filter == "unknown~empty"
    with pytest.raises(HeaderError, match="FILTER is missing"):
        translate(IMGTYPE="FLAT", FILTER=None)


def test_the_old_name_of_the_instrument_is_understood():
    assert translate(INSTRUME="LSST_ATISS").instrument == "LATISS"
    with pytest.raises(WrongCameraError, match=r"night/a\.fits: card INSTRUME is 'HSC'"):
        translate(INSTRUME="HSC")
    with pytest.raises(HeaderError, match=r"night/a\.fits: card INSTRUME is missing"):
        translate(INSTRUME=None)


@pytest.mark.parametrize(
    ("cards", "begin", "end"),
    [
        ({"DATE_BEG": None}, "2024-06-25T01:27:55.160", "2024-06-25T01:28:25.400"),
        ({"DATE_BEG": None, "DATE_END": None}, "2024-06-25T01:27:55.160", "2024-06-25T01:28:25.400"),
        ({"DATE_END": None, "MJD_END": None}, "2024-06-25T01:27:55.160", "2024-06-25T01:28:25.160"),
        ({"TIMESYS": None}, "2024-06-25T01:27:55.160", "2024-06-25T01:28:25.400"),
        ({"TIMESYS": "UTC"}, "2024-06-25T01:28:32.160", "2024-06-25T01:29:02.400"),
    ],
)
def test_times_in_all_forms_become_tai(cards, begin, end):
    observation = translate(**cards)
    assert observation.datetime_begin.tai.isot == begin
    assert observation.datetime_end.tai.isot == end


def test_parts_of_the_observation_id_stand_in_for_missing_cards():
    observation = translate(DAYOBS=None, SEQNUM=None, CONTRLLR=None)
    assert observation.exposure_id == 2024062400106
    assert translate(DAYOBS="2024-06-24").observing_day == 20240624
    assert translate(DAYOBS=20240624).observing_day == 20240624


def test_a_group_of_snaps_is_counted_from_the_index():
    observation = translate(CURINDEX=2, MAXINDEX=3)
    assert (observation.group_counter_start, observation.group_counter_end) == (105, 107)


def test_simulated_images_are_told_apart():
    assert translate(OBSID="AT_S_20240624_000106", CONTRLLR="S").has_simulated_content is True
    header = files.primary_header()
    header["HIERARCH SIMULATE ATDOME"] = 1
    assert observation_info(header, "a.fits").has_simulated_content is True


def test_positions_may_come_from_the_start_of_the_exposure_and_in_fk5():
    observation = translate(RA=None, DEC=None, RASTART=10.0, DECSTART=20.0)
    assert (observation.tracking_radec.ra.deg, observation.tracking_radec.dec.deg) == (10.0, 20.0)
    assert translate(RADESYS="FK5").tracking_radec.icrs.ra.deg == pytest.approx(223.75, abs=1e-4)
    assert translate(RADESYS="").tracking_radec.icrs.ra.deg == 223.75


def test_off_the_sky_there_is_no_position():
    for cards in ({"IMGTYPE": "FLAT"}, {"TRACKSYS": "LOCAL"}):
        observation = translate(RA=None, DEC=None, ROTPA=None, **cards)
        assert observation.tracking_radec is None
        assert observation.boresight_rotation_angle is None
        assert observation.boresight_rotation_coord == "unknown"


def test_what_nothing_depends_on_may_be_missing_or_wrong():
    observation = translate(
        PRESSURE="high", AIRTEMP=None, HUMIDITY=None, ELSTART=None, AMSTART=None, OBJECT=None
    )
    assert (observation.pressure, observation.temperature, observation.boresight_airmass) == (
        None,
        None,
        None,
    )
    assert (observation.altaz_begin, observation.object) == (None, "unknown")


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("OBSID", None), ("OBSID", "AT_O_2024_1"), ("OBSID", 5),
        ("DAYOBS", "20240625"), ("SEQNUM", 107), ("CONTRLLR", "C"), ("GROUPID", 17), ("GROUPID", "x" * 66),
        ("IMGTYPE", None), ("IMGTYPE", ""),
        ("EXPTIME", None), ("EXPTIME", "30"), ("EXPTIME", -1.0), ("EXPTIME", True), ("DARKTIME", "long"),
        ("DATE-BEG", "yesterday"), ("DATE-BEG", 5.0), ("DATE-BEG", "1970-01-01T00:00:00"),
        ("TIMESYS", "MARS"),
        ("DATE-END", "2024-06-25T01:27:54.000"), ("DATE-END", "2024-06-31T01:27:54.000"),
        ("RA", None), ("RA", 361.0), ("RA", "14:54:59"), ("DEC", -91.0), ("DEC", None),
        ("RADESYS", "GALACTIC"),
        ("ROTPA", None), ("ROTPA", "north"), ("ROTPA", 1e6),
        ("FILTER", None), ("FILTER", ""), ("FILTER", 3), ("FILTER", "it's"), ("FILTER", "x" * 40),
        ("GRATING", 3),
        ("CURINDEX", 0), ("CURINDEX", 1.5), ("MAXINDEX", "two"),
    ],
)  # fmt: skip
def test_a_card_that_is_missing_or_makes_no_sense_is_named_with_its_file(card, value):
    header = files.primary_header()
    del header[card]
    if value is not None:
        header[card] = value
    with pytest.raises(HeaderError, match=rf"^night/a\.fits: .*card {card} is ") as caught:
        observation_info(header, "night/a.fits")
    assert ("missing" in str(caught.value)) is (value is None)


def test_without_any_time_the_card_is_named():
    cards = dict.fromkeys(("DATE_BEG", "MJD_BEG"))
    with pytest.raises(HeaderError, match="card DATE-BEG is missing"):
        translate(**cards)


def test_undefined_and_nan_cards_count_as_missing():
    header = files.primary_header()
    header["RA"] = None
    with pytest.raises(HeaderError, match="card RA is missing"):
        observation_info(header, "a.fits")


def test_exposure_info_holds_json_values(tmp_path):
    info = exposure_info(read_raw(files.write(tmp_path / "a.fits")))
    assert json.loads(json.dumps(info)) == info
    assert (info["instrument"], info["detector"], info["exposure"]) == ("LATISS", 0, 2024062400106)
    assert (info["visit"], info["group"]) == (2024062400106, "2024-06-25T01:26:31.895#1")
    assert (info["day_obs"], info["band"], info["physical_filter"]) == (20240624, "r", "SDSSr_65mm~empty")
    assert (info["ra"], info["dec"], info["rotation"]) == (223.75, -20.0, 98.5)
    assert (info["exposure_time"], info["dark_time"]) == (30.0, 30.2407)
    begin, middle, end = (info[f"mjd_{when}_tai"] for when in ("begin", "mid", "end"))
    assert begin == pytest.approx(60486.06105509261, abs=1e-9)
    assert end == pytest.approx(60486.06140509248, abs=1e-9)
    assert middle == pytest.approx((begin + end) / 2, abs=1e-9)


def test_calibration_info_has_no_position():
    info = info_from_observation(translate(IMGTYPE="BIAS", RA=None, DEC=None, ROTPA=None))
    assert (info["ra"], info["dec"], info["rotation"], info["airmass"]) == (None, None, None, None)
    assert not any(isinstance(value, float) and math.isnan(value) for value in info.values())
