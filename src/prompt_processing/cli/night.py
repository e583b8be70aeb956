"""``prompt night``: prepare, play and report a night."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prompt_processing.cli.logs import configure_engines
from prompt_processing.cli.options import (
    existing_folder,
    new_file,
    night_argument,
    repo_argument,
    repo_option,
)
from prompt_processing.cli.progress import Progress

if TYPE_CHECKING:
    from prompt_processing.night.at_speed import PlayedVisit


class NightOrFolder(click.ParamType[int | Path]):
    """An observing day (eight digits), or an existing folder."""

    name = "night"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Path:
        """Return the day as a number, or the path."""
        if isinstance(value, str) and len(value) == 8 and value.isdecimal():
            return int(value)
        folder: Path = existing_folder.convert(value, param, ctx)
        return folder


@click.group()
def night() -> None:
    """Prepare, play and report a night."""


@night.command("prepare")
@night_argument
@repo_option
def night_prepare(night: Path, repo: Path) -> None:
    """Make a repository that can process NIGHT: create, calibs, refcat and templates in one go.

    What was made before is not made again, so an interrupted preparation can be continued.
    """
    from prompt_processing.factory.prepare import prepare_repository

    with Progress() as progress:
        prepare_repository(repo, night, progress=progress)
    click.echo(f"{repo}: ready for {night}")


@night.command("play")
@night_argument
@repo_option
def night_play(night: Path, repo: Path) -> None:
    """Play the events and images of NIGHT as the telescope would, and process them.

    It runs on the night's own clock; only the wait before the shutter closes is shortened. One line is
    printed per visit and detector. Visits that are finished already are not processed again.
    """
    from prompt_processing.factory.run import play_night

    with Progress() as progress:
        play_night(
            repo,
            night,
            set_up_logging=configure_engines(),
            progress=progress,
            on_visit=lambda visit: progress.line(_line(visit)),
            on_error=lambda text: progress.line(f"not observed: {text}"),
        )


@night.command("report")
@repo_argument
@click.option(
    "--night",
    type=NightOrFolder(),
    metavar="YYYYMMDD|FOLDER",
    help="Observing day (the newest one by default), or the folder of a night: adds the comparison of the "
    "newest one with its truth.",
)
@click.option(
    "--out", type=new_file, help="File of the page.  [default: report.html in the repository]", metavar="FILE"
)
@click.option("--json", "json_file", type=new_file, help="Also write the content as JSON.", metavar="FILE")
def night_report(repo: Path, night: int | Path | None, out: Path | None, json_file: Path | None) -> None:
    """Write one HTML page about a night of REPO.

    It shows the visits with their stages and latencies, the best alerts with their cutouts, completeness and
    false alerts where the truth is known, and the light curve of one object. The page needs no other file.
    """
    from prompt_processing.views.collect import collect
    from prompt_processing.web.report import to_json, write_page

    report = collect(repo, day_obs=night) if isinstance(night, int) else collect(repo, night)
    page = write_page(report, out or repo / "report.html")
    click.echo(f"page: {page}")
    if json_file is not None:
        json_file.write_text(to_json(report), encoding="utf-8")
        click.echo(f"data: {json_file}")


def _line(visit: "PlayedVisit") -> str:
    """Return what a person wants to know of a visit that was just played."""
    latency = f"{visit.latency_s:6.1f} s" if visit.latency_s is not None else "     - s"
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in visit.stage_times.items())
    outcome = visit.outcome or "given up: it asked to be delivered again each time"
    text = f"{visit.group} detector {visit.detector}: {outcome}, {visit.n_alerts} alerts, {latency}"
    return f"{text} ({stages})" if stages else text
