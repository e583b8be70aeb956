"""Which detector-visits an event has."""

import json

import astropy.units as u
import pytest

from local_cloud.visits import EVENT
from prompt_processing.domain.clock import from_tai_seconds
from prompt_processing.domain.errors import ConfigError, EventError
from prompt_processing.domain.visit import parse_event
from prompt_processing.instruments.cameras import get_camera
from prompt_processing.instruments.fan_out import detector_visits

SITE = get_camera("LATISS").site


def event(**changes):
    return parse_event(json.dumps({**EVENT, **changes}))


def test_latiss_has_one_detector():
    (visit,) = detector_visits(event())
    assert visit.key == ("LATISS", EVENT["groupId"], 0)
    assert (visit.ra, visit.dec) == (10.0, -20.0)


def test_what_is_no_observation_has_none():
    assert detector_visits(event(instrument="")) == []


def test_an_instrument_that_nobody_knows_is_an_error():
    with pytest.raises(ConfigError, match="HAL"):
        detector_visits(event(instrument="HAL"))


def observed(azimuth, altitude):
    return event(coordinateSystem=3, position=[azimuth, altitude])


def test_the_zenith_is_at_the_latitude_and_the_sidereal_time():
    (visit,) = detector_visits(observed(0.0, 90.0))
    sidereal = from_tai_seconds(EVENT["startTime"]).sidereal_time("mean", longitude=SITE.lon).deg
    # ICRS is of the year 2000: 26 years of precession are up to 0.35 deg.
    assert visit.dec == pytest.approx(SITE.lat.deg, abs=0.2)
    assert visit.ra == pytest.approx(sidereal, abs=0.4)


def test_what_is_in_the_east_has_still_to_rise_to_the_meridian():
    sidereal = from_tai_seconds(EVENT["startTime"]).sidereal_time("mean", longitude=SITE.lon)
    (east,), (west,) = detector_visits(observed(90.0, 45.0)), detector_visits(observed(270.0, 45.0))
    for visit, sign in ((east, -1), (west, +1)):
        hour_angle = (sidereal - visit.ra * u.deg).wrap_at(180 * u.deg).deg
        assert 30.0 < sign * hour_angle < 60.0


@pytest.mark.parametrize("altitude", [-5.0, 95.0])
def test_what_is_not_above_the_horizon_is_refused(altitude):
    with pytest.raises(EventError, match=r"position|coordinateSystem"):
        detector_visits(observed(0.0, altitude))


def test_a_position_of_the_mount_is_refused():
    with pytest.raises(EventError, match="coordinateSystem"):
        detector_visits(event(coordinateSystem=4))
