"""The page about a night: rendering of what `prompt_processing.views.collect` found."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import jinja2
import numpy as np

from prompt_processing.views.alerts import AlertSummary
from prompt_processing.views.collect import NightReport
from prompt_processing.views.data import plain
from prompt_processing.views.nights import VisitSummary
from prompt_processing.web.figures import (
    completeness_curve,
    data_uri,
    levels,
    light_curve,
    png,
)

_HUE_STEP: Final = 137.5
"""Golden angle [deg]: however many stages there are, neighbours get hues far apart."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the large numbers at the top of the page."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One stage in the bar of a visit; positions in percent of the bar's width."""

    left: float
    width: float
    colour: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """A visit with the bars of its stages."""

    visit: VisitSummary
    bars: tuple[Bar, ...]
    shutter: float | None
    """Where the shutter closed [percent]; None if that is not on the bar."""


@dataclass(frozen=True, slots=True)
class ShownAlert:
    """An alert with its cutouts as pictures."""

    alert: AlertSummary
    flux: str
    """Flux and its error [µJy]."""
    images: Mapping[str, str]


def to_json(report: NightReport) -> str:
    """Return everything the page says, as JSON, without pictures."""
    return json.dumps(plain(report), indent=2) + "\n"


def write_page(report: NightReport, file: Path) -> Path:
    """Write the page.

    Parameters
    ----------
    report
        Content.
    file
        Where to write; folders above it are made.

    Returns
    -------
    file
        Absolute path of the page.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render(report), encoding="utf-8")
    return file.absolute()


def render(report: NightReport) -> str:
    """Return the page as HTML that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("prompt_processing.web", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    legend = _legend(report.visits)
    longest = max((sum(visit.stages.values()) for visit in report.visits), default=0.0)
    return environment.get_template("report.html.jinja").render(
        report=report,
        figures=_figures(report),
        legend=legend,
        rows=[_row(visit, legend, longest) for visit in report.visits],
        stamps=[_stamp(alert) for alert in report.best],
        completeness=_completeness(report),
        light_curve=_light_curve(report),
        version=version("prompt-processing"),
        made_at=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _figures(report: NightReport) -> list[Figure]:
    """Return the large numbers: what a person asks first."""
    processed = sum(visit.status == "processed" for visit in report.visits)
    latency = report.median_latency_s
    figures = [
        Figure(f"{processed} / {len(report.visits)}", "visits processed"),
        Figure(str(report.n_alerts), "alerts"),
        Figure("n/a" if latency is None else f"{latency:.1f} s", "median latency from shutter close"),
    ]
    result = report.assessment
    if result is None:
        return figures
    return [
        *figures,
        Figure(_percent(result.completeness_bright, ".0f"), "of transients with S/N > 10 found"),
        Figure(f"{result.false_per_visit:.1f}", "false alerts per visit"),
        Figure(_arcsec(result.astrometric_error_arcsec), "median position error"),
        Figure(_percent(result.flux_bias, "+.1f"), "flux bias"),
    ]


def _percent(share: float | None, form: str) -> str:
    """Return a share as a percentage."""
    return "n/a" if share is None else f"{100 * share:{form}} %"


def _arcsec(angle: float | None) -> str:
    """Return an angle [arcsec] as text."""
    return "n/a" if angle is None else f'{angle:.3f}"'


def _legend(visits: Iterable[VisitSummary]) -> dict[str, str]:
    """Return a colour for every stage, in the order the stages ran."""
    names = dict.fromkeys(name for visit in visits for name in visit.stages)
    return {
        name: f"oklch({0.62 if index % 2 else 0.74} 0.11 {(230 + index * _HUE_STEP) % 360:.0f})"
        for index, name in enumerate(names)
    }


def _row(visit: VisitSummary, legend: Mapping[str, str], longest: float) -> Row:
    """Return a visit with bars on a scale on which the longest visit fills the width."""
    bars, start = [], 0.0
    for name, seconds in visit.stages.items():
        bars.append(
            Bar(
                left=round(100 * start / longest, 2) if longest else 0.0,
                width=round(100 * seconds / longest, 2) if longest else 0.0,
                colour=legend[name],
                title=f"{name}: {seconds:.2f} s",
            )
        )
        start += seconds
    shutter = visit.shutter_close_s
    on_bar = shutter is not None and longest > 0 and 0 <= shutter <= longest
    return Row(
        visit, tuple(bars), round(100 * shutter / longest, 2) if on_bar and shutter is not None else None
    )


def _stamp(alert: AlertSummary) -> ShownAlert:
    """Return an alert with its pictures; a cutout that is missing has none."""
    images = {name: data_uri(png(grey)) for name, grey in levels(alert.cutouts).items()}
    return ShownAlert(alert, _flux(alert.flux / 1000, alert.flux_err / 1000), images)


def _flux(flux: float, error: float) -> str:
    """Return a flux with as many digits as two digits of its error leave."""
    if not (np.isfinite(flux) and np.isfinite(error) and error > 0):
        return f"{flux:.3g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{flux:.{digits}f} ± {error:.{digits}f}"


def _completeness(report: NightReport) -> str | None:
    """Return the drawing of the completeness, None without truth."""
    result = report.assessment
    if result is None or not any(result.total):
        return None
    return completeness_curve(result.snr_edges, result.found, result.total)


def _light_curve(report: NightReport) -> str | None:
    """Return the drawing of the light curve, None if no object was measured."""
    curve = report.light_curve
    if curve is None:
        return None
    return light_curve(
        np.array([point.mjd for point in curve.points]),
        np.array([point.flux for point in curve.points]),
        np.array([point.flux_err for point in curve.points]),
        np.array([point.detected for point in curve.points], dtype=bool),
    )
