"""``prompt audit``: checks that nothing was lost, doubled or falsified."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prompt_processing.cli.options import json_flag, repo_argument

if TYPE_CHECKING:
    from prompt_processing.audit.findings import Audit


@click.command()
@repo_argument
@click.option(
    "--events",
    required=True,
    type=click.Path(exists=True, resolve_path=True, path_type=Path),
    metavar="PATH",
    help="File of the events, one nextVisit per line, or the folder of a night.",
)
@json_flag
@click.option("--verbose", is_flag=True, help="Also show the outcome of each expected visit and detector.")
@click.pass_context
def audit(context: click.Context, repo: Path, *, events: Path, as_json: bool, verbose: bool) -> None:
    """Check what became of the visits that the events announce.

    What the ledger of REPO claims is looked up in the decisions, the APDB, the alert archive, the central
    Butler, the metrics and the landing store. The exit status is 0 if nothing is lost, unfinished, duplicated
    or mismatching, else 1. Nothing is changed.
    """
    from prompt_processing.audit.collect import collect
    from prompt_processing.audit.judge import judge

    found = judge(collect(repo, events))
    if as_json:
        click.echo(json.dumps(_data(found, verbose=verbose), indent=2))
    else:
        _print(found, verbose=verbose)
    context.exit(0 if found.passed else 1)


def _print(found: "Audit", *, verbose: bool) -> None:
    from prompt_processing.audit.findings import FAULTS, Kind, name

    done = found.done
    parts = ", ".join(f"{count} {label}" for label, count in done.items())
    click.echo(f"{'expected':<13}{found.expected:>6}")
    click.echo(f"{'done':<13}{sum(done.values()):>6}" + (f"  {parts}" if parts else ""))
    for kind in Kind:
        if kind in FAULTS or found.count(kind):
            click.echo(f"{kind:<13}{found.count(kind):>6}")
    if verbose:
        for key, outcome in found.outcomes.items():
            click.echo(f"{name(key)}: {outcome or 'no outcome'}")
    for finding in found.findings:
        click.echo(f"{finding.kind}: {finding.where}: {finding.what}")
    click.echo("passed" if found.passed else "NOT passed")


def _data(found: "Audit", *, verbose: bool) -> dict[str, Any]:
    from prompt_processing.audit.findings import Kind
    from prompt_processing.views.data import plain

    data = {
        "passed": found.passed,
        "expected": found.expected,
        "done": found.done,
        "counts": {str(kind): found.count(kind) for kind in Kind},
        "findings": found.findings,
    }
    if verbose:
        data["visits"] = [{**key._asdict(), "outcome": outcome} for key, outcome in found.outcomes.items()]
    content: dict[str, Any] = plain(data)
    return content
