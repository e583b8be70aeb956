"""``prompt effects``: what decisions have not brought about yet."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prompt_processing.cli.logs import configure_engines
from prompt_processing.cli.options import json_flag, repo_argument
from prompt_processing.runtime.signals import stop_on_signals

if TYPE_CHECKING:
    from prompt_processing.ledger.port import PendingEffect

limit_option = click.option("--limit", type=click.IntRange(min=1), help="At most this many.  [default: all]")


@click.group()
def effects() -> None:
    """Look at alerts and metrics that could not be sent, and send them."""


@effects.command("list")
@repo_argument
@limit_option
@json_flag
def effects_list(repo: Path, limit: int | None, *, as_json: bool) -> None:
    """List what is pending, the oldest first: age, tries and the last error."""
    from prompt_processing.factory.stores import Stores

    rows = [_row(pending) for pending in Stores.open(repo).ledger.pending(limit=limit)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(
            f"{_line(row)}  {row['age_s']:.0f} s old, {row['tries']} tries, next in {row['due_in_s']:.0f} s"
        )
        if row["error"]:
            click.echo(f"    {row['error']}")
    click.echo(f"{len(rows)} pending")


@effects.command("relay")
@repo_argument
@click.option("--once", is_flag=True, help="Try everything that is pending once, then end.")
@limit_option
@click.option("--dry-run", is_flag=True, help="Only say what would be tried; implies --once.")
@click.pass_context
def effects_relay(
    context: click.Context, repo: Path, limit: int | None, *, once: bool, dry_run: bool
) -> None:
    """Send what is pending, the oldest first, until told to stop.

    What fails is tried again after 5 s, then later, up to once a minute. With --once or --limit each effect
    is tried once, also if it is not due yet, and the exit status is 1 if one failed. Several relays may run
    at the same time.
    """
    if dry_run:
        from prompt_processing.factory.stores import Stores

        found = Stores.open(repo).ledger.pending(limit=limit)
        for pending in found:
            click.echo(_line(_row(pending)))
        click.echo(f"{len(found)} would be tried")
        return
    configure_engines("prompt_processing=INFO")
    from prompt_processing.factory.relay import open_relay
    from prompt_processing.repository.central import require_repository

    require_repository(repo)
    relay, _ = open_relay(repo)
    if once or limit is not None:
        done, failed = relay.relay_all(limit)
        click.echo(f"{done} done, {failed} failed")
        context.exit(1 if failed else 0)
    stop = stop_on_signals()
    click.echo(f"{repo}: working", err=True)
    relay.run(stop)
    click.echo(f"{repo}: stopped", err=True)


def _row(pending: "PendingEffect") -> dict[str, Any]:
    return {
        **pending.visit._asdict(),
        "effect": pending.effect,
        "age_s": max(time.time() - pending.since, 0.0),
        "tries": pending.tries,
        "due_in_s": max(pending.due_in, 0.0),
        "error": pending.error,
    }


def _line(row: dict[str, Any]) -> str:
    return f"{row['group']} {row['instrument']} detector {row['detector']}  {row['effect']}"
