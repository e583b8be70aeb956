"""Clocks and time scales."""

import time

import pytest
from astropy.time import Time

from prompt_processing.domain.clock import (
    NightClock,
    WallClock,
    from_tai_seconds,
    mjd_tai,
    seconds_between,
    utc_seconds,
)


def test_tai_and_utc_are_37_seconds_apart():
    utc = Time(1.7e9, format="unix", scale="utc")
    assert seconds_between(from_tai_seconds(1.7e9 + 37), utc) == pytest.approx(0, abs=1e-6)


def test_mjd_is_tai():
    moment = Time("2026-03-16T00:00:00", scale="utc")
    assert mjd_tai(moment) == pytest.approx(61115 + 37 / 86400, abs=1e-9)


def test_a_leap_second_is_counted():
    before, after = Time("2016-12-31T23:59:59", scale="utc"), Time("2017-01-01T00:00:00", scale="utc")
    assert seconds_between(before, after) == pytest.approx(2.0, abs=1e-6)


def test_the_wall_clock_is_now():
    assert utc_seconds(WallClock().now()) == pytest.approx(time.time(), abs=1.0)


def test_a_night_clock_runs_at_the_same_pace():
    start = Time("2020-01-01T03:00:00", scale="utc")
    clock = NightClock.starting_at(start)
    first = clock.now()
    time.sleep(0.05)
    assert seconds_between(start, first) == pytest.approx(0, abs=0.5)
    assert 0.045 < seconds_between(first, clock.now()) < 1.0
