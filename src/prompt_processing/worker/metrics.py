"""Metrics of a detector-visit, from what the tasks measured and from the stage times."""

from importlib.metadata import version
from typing import Any, Final

from astropy.time import Time

from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.metrics import Measurement, VisitMetrics
from prompt_processing.domain.clock import utc_seconds
from prompt_processing.domain.outcome import Outcome, StageTimes, Stopwatch
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.execution.run import Outputs
from prompt_processing.selection.rules import observing_day

SUMMARIES: Final = ("preliminary_visit_summary", "difference_image_metrics")
"""Outputs of tasks that hold figures: dictionaries of name and value."""

UNITS: Final = {"fwhm": "pix", "arcsec": "arcsec", "mag": "mag", "electron": "electron", "njy": "nJy"}
"""Unit by the last part of a figure's name, such as ``astrometry_rms_arcsec``."""


def visit_metrics(
    decision: Decision, run: str, info: dict[str, Any], outputs: Outputs, watch: Stopwatch, now: Time
) -> VisitMetrics:
    """Collect the metrics of a detector-visit.

    Parameters
    ----------
    decision
        What was decided; gives the number of alerts.
    run
        RUN collection of the products.
    info
        What the raw's header tells.
    outputs
        Outputs of the pipeline.
    watch
        Stage times so far, and the latency.
    now
        Time of processing.
    """
    times = watch.times()
    found = [
        Measurement(f"{name}.{key}", float(value), UNITS.get(key.rpartition("_")[2], ""))
        for name in SUMMARIES
        for key, value in (outputs.get(name) or {}).items()
        if isinstance(value, int | float)
    ]
    found += _stage_times(times)
    found.append(Measurement("alerts.n_alerts", len(decision.packets)))
    if times.latency is not None:
        found.append(Measurement("alerts.time_since_shutter_close", times.latency, "s"))
    return VisitMetrics(
        instrument=info["instrument"],
        detector=info["detector"],
        visit=info["visit"],
        exposure=info["exposure"],
        group=info["group"],
        day_obs=info["day_obs"],
        band=info["band"],
        physical_filter=info["physical_filter"],
        run=run,
        version=version("prompt-processing"),
        timestamp=utc_seconds(now),
        measurements=tuple(found),
    )


def outcome_metrics(visit: DetectorVisit, outcome: Outcome, times: StageTimes, now: Time) -> VisitMetrics:
    """Collect the metrics of a detector-visit that was skipped or has failed.

    Parameters
    ----------
    visit
        The unit of work.
    outcome
        How it ended.
    times
        Stage times, and the time from shutter close to the end.
    now
        Time of the end.
    """
    found = _stage_times(times)
    if times.latency is not None:
        found.append(Measurement("outcome.time_since_shutter_close", times.latency, "s"))
    return VisitMetrics(
        instrument=visit.instrument,
        detector=visit.detector,
        visit=None,
        exposure=None,
        group=visit.groupId,
        day_obs=int(f"{observing_day(visit):%Y%m%d}"),
        band=None,
        physical_filter=visit.filters or None,
        run=None,
        version=version("prompt-processing"),
        timestamp=utc_seconds(now),
        measurements=tuple(found),
        status=str(outcome.status),
        reason=outcome.reason or "",
    )


def _stage_times(times: StageTimes) -> list[Measurement]:
    return [Measurement(f"stage_times.{stage}", seconds, "s") for stage, seconds in times.seconds.items()]
