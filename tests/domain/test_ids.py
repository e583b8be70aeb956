from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_processing.domain.errors import HeaderError, ScienceError
from prompt_processing.domain.ids import (
    CONTROLLERS,
    EXPOSURE_ID_MAX,
    ObservationNumber,
    detector_exposure_id,
    exposure_id,
    parse_exposure_id,
    parse_obs_id,
    source_id,
    visit_id_from_group,
)

days = st.dates(date(2010, 1, 1), date(2050, 12, 31)).map(lambda day: int(f"{day:%Y%m%d}"))
numbers = st.builds(
    ObservationNumber, day_obs=days, seq_num=st.integers(0, 32767), controller=st.sampled_from(CONTROLLERS)
)
detectors = st.integers(0, 255)
EPOCH = datetime(2015, 1, 1)  # noqa: DTZ001 - groups have no time zone


def test_exposure_ids_of_real_images():
    assert exposure_id(parse_obs_id("AT_O_20240624_000106")) == 2024062400106
    assert exposure_id(ObservationNumber(20180920, 65, "C")) == 3018092000065
    assert exposure_id(ObservationNumber(20100217, 6001, "H")) == 4010021706001


@pytest.mark.parametrize(
    ("controller", "last_own_day", "offset"),
    [("C", 20231004, 1), ("P", 20250417, 3), ("Q", 20250417, 4), ("S", 20250417, 5)],
)
def test_controllers_share_the_counter_after_their_last_own_day(controller, last_own_day, offset):
    next_day = int(f"{date.fromisoformat(str(last_own_day)) + timedelta(days=1):%Y%m%d}")
    own = exposure_id(ObservationNumber(last_own_day, 7, controller))
    shared = exposure_id(ObservationNumber(next_day, 7, controller))
    assert own == (last_own_day + offset * 10_000_000) * 100_000 + 7
    assert shared == next_day * 100_000 + 7


@given(number=numbers)
def test_an_exposure_id_gives_its_parts_back(number):
    exposure = exposure_id(number)
    assert 0 < exposure <= EXPOSURE_ID_MAX
    parsed = parse_exposure_id(exposure)
    assert (parsed.day_obs, parsed.seq_num) == (number.day_obs, number.seq_num)
    assert exposure_id(parsed) == exposure


@given(first=st.tuples(numbers, detectors), second=st.tuples(numbers, detectors))
def test_detector_exposure_ids_differ_when_the_exposures_or_detectors_do(first, second):
    exposures = exposure_id(first[0]), exposure_id(second[0])
    same = exposures[0] == exposures[1] and first[1] == second[1]
    ids = detector_exposure_id(exposures[0], first[1]), detector_exposure_id(exposures[1], second[1])
    assert (ids[0] == ids[1]) is same


def test_detector_exposure_id_of_a_known_exposure():
    # from 2010-01-01 to 2024-06-24 are 14 years, the leap days of 2012, 2016 and 2020, and 175 days
    assert detector_exposure_id(2024062400106, 0) == 256 * (106 + 32768 * (14 * 365 + 3 + 175))


@given(number=numbers, detector=detectors, rank=st.integers(0, 2**22 - 1))
def test_source_ids_are_positive_63_bit_and_can_be_taken_apart(number, detector, rank):
    detector_exposure = detector_exposure_id(exposure_id(number), detector)
    source = source_id(detector_exposure, rank)
    assert 0 <= source < 2**63
    assert divmod(source, 2**22) == (detector_exposure, rank)


def test_the_largest_ids_of_all_fit():
    largest = detector_exposure_id(exposure_id(ObservationNumber(20250417, 32767, "S")), 255)
    assert largest < 2**41
    assert source_id(2**41 - 1, 2**22 - 1) == 2**63 - 1


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: parse_obs_id("AT_O_2024_1"), "AT_O_2024_1"),
        (lambda: parse_obs_id("AT_X_20240624_000106"), "'X'"),
        (lambda: parse_obs_id("AT_O_20240230_000106"), "20240230"),
        (lambda: parse_obs_id("AT_O_19991231_000106"), "19991231"),
        (lambda: parse_obs_id("AT_O_20240624_100000"), "100000"),
        (lambda: parse_exposure_id(123), "123"),
        (lambda: detector_exposure_id(2024062400106, 256), "256"),
        (lambda: detector_exposure_id(2024062432768, 0), "32768"),
    ],
)
def test_bad_ids_are_refused_by_name(call, names):
    with pytest.raises(HeaderError, match=names):
        call()


@pytest.mark.parametrize(("detector_exposure", "rank"), [(1, -1), (1, 2**22), (-1, 0), (2**41, 0)])
def test_source_ids_out_of_range_are_refused(detector_exposure, rank):
    with pytest.raises(ScienceError):
        source_id(detector_exposure, rank)


def test_visit_ids_from_groups():
    # 2015-01-01T00:01:40 is 100 s after the epoch
    assert visit_id_from_group("2015-01-01T00:01:40.123#7") == 100_123_0007
    assert visit_id_from_group("2015-01-01T00:01:40.123+7") == 100_123_0007
    assert visit_id_from_group("2015-01-01T00:01:40.123") == 100_123_0000
    assert visit_id_from_group("2024062400106") == 2024062400106


@given(group=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64))
def test_every_printable_group_has_a_63_bit_visit_id_or_a_clear_error(group):
    try:
        visit, message = visit_id_from_group(group), repr(group)
    except HeaderError as error:
        visit, message = 0, str(error)
    assert 0 <= visit < 2**63
    assert repr(group) in message


@given(
    groups=st.lists(
        st.tuples(
            st.datetimes(min_value=EPOCH),
            st.integers(0, 999),
            st.integers(0, 9999),
        ),
        min_size=2,
        max_size=2,
        unique_by=lambda parts: (parts[0].replace(microsecond=0), parts[1], parts[2]),
    )
)
def test_groups_of_different_times_or_numbers_have_different_visit_ids(groups):
    ids = {
        visit_id_from_group(f"{time:%Y-%m-%dT%H:%M:%S}.{milli:03d}#{n}")
        for time, milli, n in ((t.replace(microsecond=0), m, n) for t, m, n in groups)
    }
    assert len(ids) == 2


@pytest.mark.parametrize("group", ["", "x" * 65, "grüppe", "9" * 20, "2024-13-01T00:00:00.000"])
def test_bad_groups_are_refused(group):
    with pytest.raises(HeaderError, match="group"):
        visit_id_from_group(group)
