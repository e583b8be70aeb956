"""Outcomes and stage times."""

import time

import pytest

from prompt_processing.domain.errors import NoTemplateError
from prompt_processing.domain.outcome import Outcome, Status, Stopwatch


def test_an_error_gives_its_code_and_words():
    outcome = Outcome.failed(NoTemplateError("no template within 1 deg"), "late")
    assert outcome == Outcome(Status.FAILED, "no-template", "no template within 1 deg", ("late",))
    assert str(outcome) == "failed:no-template (late)"


def test_flags_are_a_set():
    assert Outcome.processed("late", "fallback", "late") == Outcome.processed("fallback", "late")
    assert str(Outcome.processed()) == "processed"


def test_only_what_was_processed_has_no_reason():
    with pytest.raises(ValueError, match="reason"):
        Outcome(Status.SKIPPED)
    with pytest.raises(ValueError, match="reason"):
        Outcome(Status.PROCESSED, "because")


def test_a_stage_is_measured_even_if_it_fails():
    watch = Stopwatch()
    with watch.stage("isr"):
        time.sleep(0.01)
    with pytest.raises(RuntimeError), watch.stage("subtract"):
        raise RuntimeError
    watch.add("isr", 1.0)
    watch.latency = 12.0
    times = watch.times()
    assert list(times.seconds) == ["isr", "subtract"]
    assert 1.01 <= times.seconds["isr"] < 1.5
    assert times.latency == 12.0
