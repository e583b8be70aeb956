"""``prompt status``: what became of each visit."""

import json
from collections import Counter
from pathlib import Path

import click

from prompt_processing.cli.options import json_flag, repo_argument


@click.command()
@repo_argument
@json_flag
def status(repo: Path, *, as_json: bool) -> None:
    """Show what became of each visit that REPO has heard of."""
    from prompt_processing.repository.central import require_repository
    from prompt_processing.views.collect import visits_of
    from prompt_processing.views.data import plain

    require_repository(repo)
    visits = visits_of(repo)
    if as_json:
        click.echo(json.dumps(plain(visits), indent=2))
        return
    if not visits:
        click.echo("no visit yet")
        return
    counts = Counter(visit.status for visit in visits)
    for visit in visits:
        latency = f"{visit.latency_s:.1f} s" if visit.latency_s is not None else "-"
        remarks = ", ".join(filter(None, (visit.reason, *visit.flags)))
        click.echo(
            f"{visit.group:<28} {visit.instrument} {visit.detector:>3}  {visit.status:<10} "
            f"{visit.n_alerts:>5} alerts  {latency:>8}  {remarks}".rstrip()
        )
        if visit.detail:
            click.echo(f"    {visit.detail}")
    click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))
