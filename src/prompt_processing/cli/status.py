"""``prompt status``: what became of each visit."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prompt_processing.cli.options import json_flag, limit_option, night_option, repo_argument

if TYPE_CHECKING:
    from prompt_processing.views.nights import NightStatus


@click.command()
@repo_argument
@night_option
@limit_option
@json_flag
def status(repo: Path, *, day_obs: int | None, limit: int, as_json: bool) -> None:
    """Show what became of the visits of a night.

    The first detector-visits of the night are listed, with "?" for a number of alerts that the ledger does
    not know because an earlier version decided. The last line counts all of the night by outcome. JSON is the
    list alone.
    """
    from prompt_processing.factory.stores import Stores
    from prompt_processing.views.data import plain
    from prompt_processing.views.nights import night_status

    ledger = Stores.open(repo).existing_ledger
    found = None if ledger is None else night_status(ledger, day_obs, limit)
    if as_json:
        click.echo(json.dumps(plain(() if found is None else found.visits), indent=2))
    elif found is None:
        click.echo("no visit yet")
    else:
        _print(found)


def _print(found: "NightStatus") -> None:
    for visit in found.visits:
        latency = f"{visit.latency_s:.1f} s" if visit.latency_s is not None else "-"
        remarks = ", ".join(filter(None, (visit.reason, *visit.flags)))
        n_alerts = "?" if visit.n_alerts is None else visit.n_alerts
        click.echo(
            f"{visit.group:<28} {visit.instrument} {visit.detector:>3}  {visit.status:<10} "
            f"{n_alerts:>5} alerts  {latency:>8}  {remarks}".rstrip()
        )
        if visit.detail:
            click.echo(f"    {visit.detail}")
    if len(found.visits) < found.total:
        click.echo(f"... {found.total - len(found.visits)} more; see --limit")
    counts = [f"{count} {outcome}" for outcome, count in found.summary.counts.items()]
    unknown = f" and those of {found.summary.unknown} older visits" if found.summary.unknown else ""
    parts = ", ".join([*counts, f"{found.summary.n_alerts} alerts{unknown}"])
    click.echo(f"{found.day_obs}: {parts if counts else 'no visit'}")
