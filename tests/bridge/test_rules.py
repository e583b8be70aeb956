"""Who gets an event, and who does not."""

import pytest
import yaml
from structlog.testing import capture_logs

from local_cloud.visits import EVENT
from prompt_processing.bridge.rules import Rules, Skipped
from prompt_processing.config import BridgeSettings, InstrumentSettings
from prompt_processing.domain.clock import from_tai_seconds
from prompt_processing.domain.errors import ConfigError, EventError
from prompt_processing.domain.visit import CancelVisit, NextVisitCanceled, parse_event
from prompt_processing.instruments.detector_map import DetectorMap

LSSTCAM = {"instrument": "LSSTCam", "salIndex": 1}


class AtOnce:
    """Asks rules about events that come now."""

    def __init__(self, judge):
        self._judge = judge

    def messages(self, event):
        return self._judge.messages(event, self._judge.now())


class Clock:
    """Shows a time after the event was sent [s]."""

    def __init__(self, age):
        self.age = age

    def now(self):
        return from_tai_seconds(EVENT["private_sndStamp"] + self.age)


def rules(age=0.0, instruments=None, expiry=3600.0, **changes):
    detectors = DetectorMap(instruments or InstrumentSettings())
    return AtOnce(Rules(BridgeSettings(**changes), detectors, expiry=expiry, clock=Clock(age)))


def event(**changes):
    return parse_event({**EVENT, **changes})


def cancelled(**changes):
    fields = {
        "salIndex": 2,
        "scriptSalIndex": 7,
        "groupId": "g",
        "private_efdStamp": EVENT["private_efdStamp"],
    }
    return NextVisitCanceled(**{**fields, **changes})


def test_one_message_per_detector():
    (latiss,) = rules().messages(event())
    assert (latiss.instrument, latiss.detector) == ("LATISS", 0)
    visits = rules().messages(event(**LSSTCAM))
    assert [visit.detector for visit in visits] == list(range(189))
    assert {visit.groupId for visit in visits} == {EVENT["groupId"]}


@pytest.mark.parametrize(
    ("changes", "settings", "reason"),
    [
        ({"instrument": ""}, {}, "no-instrument"),
        ({"instrument": "HSC"}, {}, "unknown-instrument"),
        ({"salIndex": 999}, {}, "test-queue"),
        ({"salIndex": 5}, {"skip_queues": (5,)}, "test-queue"),
        ({"survey": "BLOCK-T17"}, {"skip_surveys": ("BLOCK-1", "BLOCK-T*")}, "survey"),
        ({"coordinateSystem": 1}, {}, "no-position"),
        ({"coordinateSystem": 4}, {}, "no-position"),
    ],
)
def test_who_gets_nothing_is_told_why(changes, settings, reason):
    assert rules(**settings).messages(event(**changes)) == Skipped(reason)


def test_nothing_else_is_left_out():
    assert len(rules(skip_surveys=("BLOCK-T*",)).messages(event(survey="BLOCK-1"))) == 1
    assert len(rules(skip_queues=()).messages(event(salIndex=999))) == 1


@pytest.mark.parametrize("age", [-30.0, 0.0, 3599.0])
def test_an_event_counts_until_it_is_too_old_by_its_time_in_utc(age):
    # The stamps differ by 37 s: in TAI it would be too old at 3563 s already.
    assert len(rules(age).messages(event())) == 1
    assert len(rules(age).messages(cancelled())) == 1


def test_too_old():
    assert rules(3601.0).messages(event()) == Skipped("expired")
    assert rules(3601.0).messages(cancelled()) == Skipped("expired")
    assert len(rules(1e7, expiry=float("inf")).messages(event())) == 1


def test_a_position_outside_the_sky_is_an_error():
    with pytest.raises(EventError, match="declination 91"):
        rules().messages(event(position=[10.0, 91.0]))


def test_a_cancelled_visit_goes_to_the_instruments_of_its_script_queue():
    (message,) = rules().messages(cancelled())
    assert message == CancelVisit(instrument="LATISS", groupId="g", scriptSalIndex=7)
    (message,) = rules().messages(cancelled(salIndex=1))
    assert message.instrument == "LSSTCam"


def test_one_of_an_unknown_queue_goes_to_all():
    messages = rules().messages(cancelled(salIndex=3))
    assert [message.instrument for message in messages] == ["LATISS", "LSSTCam"]


def write(file, content):
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))


def test_detectors_are_switched_off_by_a_file_that_is_read_again(tmp_path):
    file = tmp_path / "detectors.yaml"
    write(file, {"LSSTCam": {120: False, 122: False, 0: True}})
    judge = rules(instruments=InstrumentSettings(detector_map=str(file)))
    visits = judge.messages(event(**LSSTCAM))
    assert len(visits) == 187
    assert not {120, 122} & {visit.detector for visit in visits}
    write(file, {"LSSTCam": dict.fromkeys(range(189), False), "LATISS": {0: False}})
    assert judge.messages(event(**LSSTCAM)) == Skipped("detectors-off")
    assert judge.messages(event()) == Skipped("detectors-off")
    # Kubernetes replaces a file by a link that leads elsewhere.
    other = tmp_path / "other.yaml"
    write(other, "")
    (tmp_path / "link").symlink_to(other)
    (tmp_path / "link").replace(file)
    assert len(judge.messages(event(**LSSTCAM))) == 189


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", "LSSTCam: 5", {"LSSTCam": {1: "off"}}, {"LSSTCam": {189: False}}, {"HSC": {1: False}}],
)
def test_a_wrong_file_stops_the_start_but_not_the_night(tmp_path, content):
    file = tmp_path / "detectors.yaml"
    settings = InstrumentSettings(detector_map=str(file))
    write(file, content)
    with pytest.raises(ConfigError, match=r"detectors\.yaml"):
        DetectorMap(settings)
    write(file, {"LSSTCam": {5: False}})
    judge = rules(instruments=settings)
    write(file, content)
    with capture_logs() as lines:
        assert len(judge.messages(event(**LSSTCAM))) == 188
        assert len(judge.messages(event(**LSSTCAM))) == 188
    (line,) = lines
    assert line["log_level"] == "error"
    file.unlink()
    assert len(judge.messages(event(**LSSTCAM))) == 188


def test_the_file_switches_off_what_the_settings_have_on(tmp_path):
    file = tmp_path / "detectors.yaml"
    write(file, {"LSSTCam": {94: False, 3: True}})
    settings = InstrumentSettings(detectors={"LSSTCam": (93, 94, 95)}, detector_map=str(file))
    assert [visit.detector for visit in rules(instruments=settings).messages(event(**LSSTCAM))] == [93, 95]
