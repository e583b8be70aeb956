"""``prompt visits``: looking at single visits, and taking them up again."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prompt_processing.cli.options import json_flag, repo_argument

if TYPE_CHECKING:
    from prompt_processing.ledger.port import AttemptRecord, DetectorVisitRecord, Ledger

group_argument = click.argument("group")
detector_option = click.option("--detector", type=int, help="Only this detector.  [default: all]")
dry_run_flag = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.group()
def visits() -> None:
    """Look at single visits, and take them up again."""


@visits.command("show")
@repo_argument
@group_argument
@detector_option
@json_flag
def visits_show(repo: Path, group: str, detector: int | None, *, as_json: bool) -> None:
    """Show all that is known of the visit GROUP: its attempts, steps, images and outcomes."""
    from prompt_processing.factory.stores import Stores
    from prompt_processing.views.data import plain
    from prompt_processing.worker.operate import select

    ledger = Stores.open(repo).ledger
    records = select(ledger, group, detector)
    if as_json:
        shown = [{**plain(record), "visit": record.visit.model_dump(mode="json")} for record in records]
        click.echo(json.dumps(shown, indent=2))
        return
    for record in records:
        _show(ledger, record)


@visits.command("retry")
@repo_argument
@group_argument
@detector_option
@dry_run_flag
def visits_retry(repo: Path, group: str, detector: int | None, *, dry_run: bool) -> None:
    """Let the visit GROUP be processed again, if it was skipped, has failed or waits in the queue.

    Its message is put into the queue again; a worker takes it from there. What made it end as it did should
    be mended before: without its image, a cancelled visit is cancelled again.
    """
    from prompt_processing.factory.stores import Stores
    from prompt_processing.worker.operate import name, retry, select

    stores = Stores.open(repo)
    ledger, queue = stores.ledger, stores.publisher
    for record in select(ledger, group, detector):
        retry(ledger, queue, record, dry_run=dry_run)
        click.echo(f"{name(record)}: {'would be' if dry_run else 'is'} queued again, was {_state(record)}")


@visits.command("fail")
@repo_argument
@group_argument
@detector_option
@click.option("--why", required=True, help="The reason, kept with the outcome.")
@dry_run_flag
def visits_fail(repo: Path, group: str, detector: int | None, *, why: str, dry_run: bool) -> None:
    """Give the visit GROUP up, if it has no outcome and nobody is working on it.

    It ends with the outcome failed:given-up. Stop the worker first if it is taken up again and again.
    """
    from prompt_processing.factory.stores import Stores
    from prompt_processing.worker.operate import give_up, name, select

    ledger = Stores.open(repo).ledger
    for record in select(ledger, group, detector):
        give_up(ledger, record, why, dry_run=dry_run)
        click.echo(f"{name(record)}: {'would be' if dry_run else 'is'} given up, was {_state(record)}")


@visits.command("sweep")
@repo_argument
@click.option(
    "--older-than",
    type=click.FloatRange(min=0.0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Only visits that nobody has worked on for longer than this.",
)
@dry_run_flag
def visits_sweep(repo: Path, older_than: float, *, dry_run: bool) -> None:
    """Queue all visits again that have no outcome and that nobody is working on.

    Workers do this by themselves now and then; running it more often harms nothing.
    """
    from prompt_processing.factory.stores import Stores
    from prompt_processing.worker.sweep import sweep

    ledger = Stores.open(repo).ledger
    if dry_run:
        keys = [record.visit.key for record in ledger.stale(older_than=older_than)]
    else:
        keys = sweep(ledger, Stores.open(repo).publisher, older_than)
    for key in keys:
        click.echo(f"{key.group} {key.instrument} detector {key.detector}")
    click.echo(f"{len(keys)} {'would be ' if dry_run else ''}queued again")


def _show(ledger: "Ledger", record: "DetectorVisitRecord") -> None:
    from prompt_processing.worker.operate import name

    click.echo(f"{name(record)}: {_state(record)}")
    if record.outcome is not None and record.outcome.detail:
        click.echo(f"    {record.outcome.detail}")
    if record.steps:
        click.echo(f"  steps      {', '.join(record.steps)}")
    if record.pending:
        click.echo(f"  pending    {', '.join(record.pending)}")
    for arrival in ledger.arrivals(record.visit.key):
        click.echo(f"  image      {arrival.pointer.arrived_at}  {arrival.pointer.key}")
    for outcome in ledger.history(record.visit.key)[: -1 if record.outcome is not None else None]:
        click.echo(f"  reopened   {outcome}")
    for attempt in record.attempts:
        click.echo(f"  attempt {attempt.attempt:<2} {_time(attempt.started_at)}  {_attempt(attempt)}")


def _attempt(attempt: "AttemptRecord") -> str:
    """Return how an attempt ended, who made it, and where its time went."""
    end = attempt.outcome or attempt.error or ("is running" if attempt.ended_at is None else "ended")
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in attempt.times.seconds.items())
    text = f"{end}, by {attempt.owner}"
    if attempt.times.latency is not None:
        text += f", {attempt.times.latency:.1f} s after shutter close"
    return f"{text} ({stages})" if stages else text


def _state(record: "DetectorVisitRecord") -> str:
    """Return the outcome, or what there is instead."""
    if record.outcome is not None:
        return str(record.outcome)
    state = f"in work at {record.working}" if record.working is not None else "queued"
    return f"{state}, cancelled" if record.cancelled else state


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
