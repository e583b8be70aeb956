import json

import pytest
from astropy.time import Time

SAL_FIELDS = [
    "private_efdStamp",
    "private_kafkaStamp",
    "salIndex",
    "private_revCode",
    "private_sndStamp",
    "private_rcvStamp",
    "private_seqNum",
    "private_identity",
    "private_origin",
    "scriptSalIndex",
    "groupId",
    "coordinateSystem",
    "position",
    "startTime",
    "rotationSystem",
    "cameraAngle",
    "filters",
    "dome",
    "duration",
    "nimages",
    "instrument",
    "survey",
    "totalCheckpoints",
]


@pytest.fixture(scope="module")
def events(night):
    return [json.loads(line) for line in (night / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def visits(exposures):
    return exposures[exposures["kind"] == "science"]


def test_there_is_one_complete_event_per_visit(events, visits):
    assert [event["groupId"] for event in events] == list(visits["group"])
    for event in events:
        assert list(event) == SAL_FIELDS
        assert event["instrument"] == "LATISS"
        assert event["nimages"] == 1
        assert event["coordinateSystem"] == 2
        assert event["rotationSystem"] == 2


def test_stamps_are_in_their_time_scales(events):
    for event in events:
        assert event["private_sndStamp"] - event["private_efdStamp"] == pytest.approx(37.0, abs=1e-3)
        utc = Time(event["private_efdStamp"], format="unix", scale="utc")
        # The group is named after the moment, in TAI, at which the visit was announced.
        assert utc.tai.isot == event["groupId"]


def test_visits_are_announced_in_time_and_start_as_announced(events, visits):
    for event, visit in zip(events, visits, strict=True):
        begin = Time(visit["begin"], scale="tai")
        # Seconds counted in TAI: the calendar text of TAI read as if it were UTC.
        seconds = Time(begin.isot, scale="utc").unix
        assert event["startTime"] == pytest.approx(seconds, abs=1.0)
        assert seconds - event["private_sndStamp"] >= 20.0
    begins = Time(list(visits["begin"]), scale="tai")
    assert (begins[1:] - begins[:-1]).to_value("s") == pytest.approx([40.0, 40.0], abs=1.0)


def test_events_say_what_the_headers_say(events, visits, raws):
    for event, visit in zip(events, visits, strict=True):
        header = raws.header(visit["obs_id"])
        assert event["position"] == [header["RA"], header["DEC"]]
        assert event["cameraAngle"] == header["ROTPA"]
        assert event["filters"] == "SDSSr_65mm~empty"
        assert event["survey"] == header["PROGRAM"]
