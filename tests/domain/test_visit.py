"""Visit events and the messages made from them."""

import json

import jsonschema
import pytest

from prompt_processing.domain.errors import EventError
from prompt_processing.domain.visit import (
    CancelVisit,
    DetectorVisit,
    WarmUp,
    event_schema,
    fan_out,
    message_schema,
    parse_event,
    parse_message,
)

EVENT = {
    "salIndex": 2,
    "scriptSalIndex": 100123,
    "groupId": "2026-03-16T02:01:03.123#1",
    "coordinateSystem": 2,
    "position": [359.5, -21.25],
    "startTime": 1773626500.0,
    "rotationSystem": 2,
    "cameraAngle": -10.0,
    "filters": "SDSSr_65mm~empty",
    "dome": 2,
    "duration": 34.0,
    "nimages": 1,
    "instrument": "LATISS",
    "survey": "BLOCK-430",
    "totalCheckpoints": 0,
    "private_sndStamp": 1773626437.0,
    "private_efdStamp": 1773626400.0,
}


def event(**changes):
    return {**EVENT, **changes}


def test_an_event_keeps_every_public_field():
    parsed = parse_event(json.dumps(event(private_revCode="abc", private_origin=7)))
    assert parsed.model_dump(mode="json") == EVENT


def test_stamps_are_tai_and_utc():
    parsed = parse_event(event())
    # The two stamps are of the same moment: TAI is 37 s ahead.
    assert parsed.published.utc.unix == pytest.approx(EVENT["private_efdStamp"], abs=1e-6)


def test_shutter_close_is_start_and_duration():
    visit = fan_out(parse_event(event()), [0])[0]
    assert visit.predicted_shutter_close.utc.unix == pytest.approx(1773626500.0 + 34.0 - 37.0, abs=1e-6)


def test_fan_out_gives_one_message_for_each_detector():
    visits = fan_out(parse_event(event()), [3, 0, 3])
    assert [visit.detector for visit in visits] == [0, 3]
    assert [visit.kind for visit in visits] == ["visit", "visit"]
    assert visits[0].key == ("LATISS", EVENT["groupId"], 0)
    assert "private_efdStamp" not in visits[0].model_dump()
    assert (visits[0].ra, visits[0].dec, visits[0].rotation) == (359.5, -21.25, 350.0)


def test_no_observation_has_no_messages():
    assert fan_out(parse_event(event(instrument="", coordinateSystem=1)), [0]) == []


def test_a_message_survives_its_trip():
    visit = fan_out(parse_event(event()), [0])[0]
    assert parse_message(visit.model_dump_json()) == visit


def test_a_message_of_text_fields_is_understood():
    """A Redis stream carries flat maps of text."""
    visit = fan_out(parse_event(event()), [0])[0]
    flat = {name: str(value) for name, value in visit.model_dump(mode="json").items()}
    flat |= {"position": "[359.5, -21.25]"}
    assert parse_message(flat) == visit


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"position": [1.0]}, "position"),
        ({"position": [1.0, float("nan")]}, "position"),
        ({"groupId": ""}, "groupId"),
        ({"startTime": "soon"}, "startTime"),
        ({"coordinateSystem": 9}, "coordinateSystem"),
        ({"nimages": -1}, "nimages"),
        ({"duration": float("inf")}, "duration"),
        ({"instrument": "../etc"}, "instrument"),
    ],
)
def test_a_wrong_field_is_named(change, field):
    with pytest.raises(EventError, match=field):
        parse_event(event(**change))


@pytest.mark.parametrize("field", sorted(EVENT))
def test_a_missing_field_is_named(field):
    incomplete = event()
    del incomplete[field]
    with pytest.raises(EventError, match=f"{field} is missing"):
        parse_event(incomplete)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", b"\xff"])
def test_what_is_no_event_is_an_event_error(text):
    with pytest.raises(EventError):
        parse_event(text)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"coordinateSystem": 3}, "coordinateSystem"),
        ({"position": [10.0, 90.5]}, "position"),
        ({"position": [1000.0, 0.0]}, "position"),
        ({"startTime": 0.0}, "startTime"),
    ],
)
def test_what_cannot_be_observed_is_refused(change, field):
    with pytest.raises(EventError, match=field):
        fan_out(parse_event(event(**change)), [0])


def test_filters():
    def filters(text):
        return parse_event(event(filters=text))

    assert filters("").filter_names == ()
    assert filters(" ").physical_filter is None
    assert filters("SDSSr_65mm~empty").physical_filter == "SDSSr_65mm~empty"
    assert filters("g~empty, r~empty").filter_names == ("g~empty", "r~empty")
    assert filters("g~empty, r~empty").physical_filter is None


def test_rotation_is_unknown_in_other_systems():
    assert parse_event(event(rotationSystem=4)).rotation is None


def test_kinds_of_messages():
    cancel = {
        "kind": "cancel",
        "schema_version": 1,
        "instrument": "LATISS",
        "groupId": "g",
        "scriptSalIndex": 5,
    }
    assert isinstance(parse_message(cancel), CancelVisit)
    warm = {"kind": "warmup", "schema_version": 1, "instrument": "LATISS"}
    assert isinstance(parse_message(warm), WarmUp)
    with pytest.raises(EventError, match="kind"):
        parse_message({**cancel, "kind": "explode"})
    with pytest.raises(EventError, match="schema_version"):
        parse_message({**warm, "schema_version": 2})


def test_schemas_accept_what_is_sent_and_refuse_the_rest():
    jsonschema.validate(event(), event_schema())
    visit = fan_out(parse_event(event()), [0])[0]
    message = visit.model_dump(mode="json")
    jsonschema.validate(message, message_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**message, "detector": -1}, message_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event(private_sndStamp="x"), event_schema())


def test_messages_do_not_change():
    visit = fan_out(parse_event(event()), [0])[0]
    assert isinstance(visit, DetectorVisit)
    with pytest.raises(ValueError, match="frozen"):
        visit.detector = 1
