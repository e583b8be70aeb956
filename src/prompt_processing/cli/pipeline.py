"""``prompt pipeline``: which pipelines visits get."""

import getpass
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from prompt_processing.cli.options import repo_argument
from prompt_processing.domain.errors import ConfigError, OperationError

if TYPE_CHECKING:
    from prompt_processing.selection.override import Override
    from prompt_processing.selection.rules import Rule


@click.group()
def pipeline() -> None:
    """Check and explain the choice of pipelines, and override it."""


@pipeline.command("check")
@repo_argument
def pipeline_check(repo: Path) -> None:
    """Check the rules of REPO and all pipelines that they name.

    Prints the rules in their order. A mistake is told with file and line; the exit status is 1 then.
    """
    from lsst.daf.butler import Butler

    from prompt_processing.config import Settings
    from prompt_processing.execution.graphs import load_graph
    from prompt_processing.factory.stores import Stores
    from prompt_processing.repository.central import require_repository

    require_repository(repo)
    try:
        selection = Stores.open(repo).selection
    except ConfigError as error:
        for line in str(error).splitlines():
            click.echo(line, err=True)
        raise SystemExit(1) from error
    for rule in selection.rules:
        click.echo(_describe(rule))
    problems = []
    with Butler.from_config(Settings.load(repo).repository.butler) as butler:
        for path in selection.pipelines:
            try:
                graph = load_graph(path, butler)
            except ConfigError as error:
                problems.append(" ".join(str(error).split()))
                continue
            problems += [
                f"{path}: the repository does not know the dataset type {name}"
                for name in sorted(graph.inputs)
                if not butler.registry.queryDatasetTypes(name)
            ]
            click.echo(
                f"{path}: {len(graph.early)} tasks before the image, {len(graph.late)} after it; "
                f"version {graph.version}"
            )
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise SystemExit(1)


@pipeline.command("explain")
@repo_argument
@click.argument("event", type=click.File("r"))
@click.option("--detector", type=int, help="Explain it for one detector only.")
def pipeline_explain(repo: Path, event: TextIO, detector: int | None) -> None:
    """Say which pipelines a visit would get now, and why.

    EVENT is a file with a nextVisit event in JSON, or with one per line, such as a night's events.jsonl;
    - reads standard input.
    """
    from prompt_processing.config import Settings
    from prompt_processing.domain.visit import parse_event
    from prompt_processing.factory.stores import Stores
    from prompt_processing.instruments.cameras import get_camera
    from prompt_processing.instruments.detector_map import DetectorMap
    from prompt_processing.instruments.fan_out import detector_visits

    stores = Stores.open(repo)
    selection, override = stores.selection, stores.overrides.current()
    active = DetectorMap(Settings.load(repo).instruments).active()
    found = 0
    for text in _events(event.read()):
        for visit in detector_visits(parse_event(text), active):
            if detector not in {None, visit.detector}:
                continue
            found += 1
            centre = get_camera(visit.instrument).centre(visit.detector, visit.ra, visit.dec, visit.rotation)
            choice = selection.choose(visit, centre, override)
            names = ", ".join(path.stem for path in choice.pipelines) or "none: skipped as no-pipeline"
            click.echo(f"{visit.instrument} {visit.groupId} detector {visit.detector}: {names}")
            for reason in choice.reasons:
                click.echo(f"  {reason}")
    if not found:
        raise OperationError(f"{event.name}: no event announces anything for {detector or 'any'} detector")


@pipeline.group("override")
def pipeline_override() -> None:
    """Decide for all rules, from the next visit on, until it is cleared.

    Nothing needs to be restarted. Every change is kept with who made it and why.
    """


@pipeline_override.command("set")
@repo_argument
@click.argument("pipelines", nargs=-1)
@click.option("--skip", is_flag=True, help="Process nothing: visits are skipped as no-pipeline.")
@click.option("--why", required=True, help="Reason, for those who find it later.")
@click.option("--instrument", help="Only for visits of this instrument.")
@click.option("--survey", help="Only for visits of surveys that match this pattern, such as BLOCK-T*.")
def override_set(
    repo: Path,
    pipelines: tuple[str, ...],
    *,
    skip: bool,
    why: str,
    instrument: str | None,
    survey: str | None,
) -> None:
    """Let visits get PIPELINES, best first, for example LATISS/SingleFrame.yaml."""
    from lsst.daf.butler import Butler

    from prompt_processing.config import Settings
    from prompt_processing.execution.graphs import load_graph
    from prompt_processing.factory.stores import Stores
    from prompt_processing.instruments.cameras import get_camera
    from prompt_processing.selection.override import Override

    if skip == bool(pipelines):
        raise click.UsageError("give pipelines, or --skip")
    overrides = Stores.open(repo).overrides
    settings = Settings.load(repo)
    if instrument is not None:
        get_camera(instrument)
    with Butler.from_config(settings.repository.butler) as butler:
        for name in pipelines:
            load_graph(settings.pipelines.find(name, repo), butler)
    replaced = overrides.current()
    made = overrides.add(
        lambda when: Override(
            action="set",
            pipelines=pipelines,
            reason=why,
            who=_who(),
            when=when,
            instrument=instrument,
            survey=survey,
        )
    )
    click.echo(_line(made))
    if replaced is not None:
        click.echo(f"in place of: {_line(replaced)}")


@pipeline_override.command("clear")
@repo_argument
@click.option("--why", required=True, help="Reason, for those who find it later.")
def override_clear(repo: Path, why: str) -> None:
    """Let the rules decide again."""
    from prompt_processing.factory.stores import Stores
    from prompt_processing.selection.override import Override

    overrides = Stores.open(repo).overrides
    try:
        if overrides.current() is None:
            click.echo("there is no override")
            return
    except ConfigError as error:
        # One that nobody can read is cleared like any other.
        click.echo(str(error), err=True)
    made = overrides.add(lambda when: Override(action="clear", reason=why, who=_who(), when=when))
    click.echo(_line(made))


@pipeline_override.command("show")
@repo_argument
@click.option("--all", "show_all", is_flag=True, help="Show all changes there ever were, oldest first.")
def override_show(repo: Path, *, show_all: bool) -> None:
    """Show what holds now."""
    from prompt_processing.factory.stores import Stores

    overrides = Stores.open(repo).overrides
    current = overrides.current()
    for made in overrides.history() if show_all else [current] if current else []:
        click.echo(_line(made))
    if current is None:
        click.echo("no override: the rules decide")


def _events(text: str) -> list[str]:
    """Return the events of a text: one for each line, or one in all."""
    try:
        json.loads(text)
    except ValueError:
        return [line for line in text.splitlines() if line.strip()]
    return [text]


def _describe(rule: "Rule") -> str:
    """Return a rule in one line."""
    conditions = rule.when.model_dump(exclude_none=True, by_alias=True)
    when = ", ".join(f"{name} {_plain(value)}" for name, value in conditions.items()) or "every visit"
    canary = f"; {rule.canary.share:.0%} of them: {', '.join(rule.canary.pipelines)}" if rule.canary else ""
    return f"{rule.name}: {when} -> {', '.join(rule.pipelines) or 'skipped'}{canary}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_plain(part)}" for name, part in value.items())
    return " or ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _line(made: "Override") -> str:
    """Return a change in one line."""
    what = ", ".join(made.pipelines) or "nothing is processed" if made.action == "set" else "cleared"
    scope = [f" of {made.instrument}"] * bool(made.instrument) + [f" of survey {made.survey}"] * bool(
        made.survey
    )
    visits = f", for visits{''.join(scope)}" if scope else ""
    return f"{made.when} {made.who}: {what}{visits} ({made.reason})"


def _who() -> str:
    try:
        user = getpass.getuser()
    except OSError:  # a container may have a user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
