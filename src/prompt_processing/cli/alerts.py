"""``prompt alerts``: what changed in the sky."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import click

from prompt_processing.cli.options import json_flag, limit_option, new_file, night_option, repo_argument

_ORDERS = {"snr": lambda alert: -alert.snr, "id": lambda alert: alert.id, "time": lambda alert: alert.mjd}
_HEADING = (
    f"{'id':>19}  {'object':>19}  {'visit':>19}  {'ra [deg]':>10} {'dec [deg]':>10} {'S/N':>6}  flux [nJy]"
)


@click.group()
def alerts() -> None:
    """List and show alerts."""


@alerts.command("list")
@repo_argument
@night_option
@limit_option
@click.option(
    "--order",
    type=click.Choice(["visit", *_ORDERS]),
    default="visit",
    show_default=True,
    help="Order of the list. Any other than that of the visits reads all alerts of the night first.",
)
@click.option("--all", "with_flagged", is_flag=True, help="Also alerts with a disqualifying flag.")
@json_flag
def alerts_list(
    repo: Path, *, day_obs: int | None, limit: int, order: str, with_flagged: bool, as_json: bool
) -> None:
    """List the alerts of a night of REPO.

    Those with a flag that says that they are no real sources are left out by default.
    """
    from prompt_processing.factory.stores import Stores
    from prompt_processing.images.dia_flags import DISQUALIFYING_FLAGS
    from prompt_processing.ledger.nights import every
    from prompt_processing.views.alerts import alerts_of, summarise
    from prompt_processing.views.data import plain

    stores = Stores.open(repo)
    ledger = stores.existing_ledger
    night = ledger.newest_night() if ledger is not None and day_obs is None else day_obs
    records = () if ledger is None or night is None else every(ledger, night)
    summaries = (
        summarise(alert, frozenset(DISQUALIFYING_FLAGS)) for _, alert in alerts_of(records, stores.decisions)
    )
    found = (alert for alert in summaries if with_flagged or not alert.disqualified)
    chosen = list(islice(found if order == "visit" else sorted(found, key=_ORDERS[order]), limit))
    if as_json:
        click.echo(json.dumps(plain(chosen), indent=2))
        return
    click.echo(_HEADING)
    for alert in chosen:
        click.echo(
            f"{alert.id:>19}  {alert.object_id or '-':>19}  {alert.visit:>19}  {alert.ra:>10.5f} "
            f"{alert.dec:>+10.5f} {alert.snr:>6.1f}  {alert.flux:.0f} +- {alert.flux_err:.0f}"
        )
    if ledger is None or night is None:
        click.echo("no visit yet")
        return
    summary = ledger.summary(night)
    decided = "?" if summary.unknown else summary.n_alerts
    click.echo(f"{night}: {len(chosen)} shown, {decided} decided")


@alerts.command("show")
@repo_argument
@click.argument("alert_id", type=int)
@click.option(
    "--png", "png_file", type=new_file, metavar="FILE", help="Draw science, template and difference."
)
@json_flag
def alerts_show(repo: Path, alert_id: int, png_file: Path | None, *, as_json: bool) -> None:
    """Show the alert with the number ALERT_ID: its main fields, or with --json all but the cutouts."""
    from prompt_processing.config import Settings
    from prompt_processing.views.alerts import CUTOUTS, cutouts, read_alert
    from prompt_processing.views.data import plain
    from prompt_processing.web.figures import triplet

    alert = read_alert(Settings.load(repo).repository.alerts, alert_id)
    if as_json:
        fields = {name: value for name, value in alert.items() if name not in CUTOUTS}
        click.echo(json.dumps(plain(fields), indent=2))
    else:
        _print(alert)
    if png_file is not None:
        png_file.write_bytes(triplet(cutouts(alert)))
        click.echo(f"cutouts: {png_file}", err=True)


def _print(alert: dict[str, Any]) -> None:
    """Print the fields of an alert that a person asks for first."""
    from prompt_processing.views.alerts import summarise

    main = summarise(alert, frozenset())
    n_forced = len(alert["prvDiaForcedSources"] or ())
    rows = {
        "alert": main.id,
        "object": main.object_id or "-",
        "visit": f"{main.visit}, detector {main.detector}, band {main.band}",
        "time": f"MJD {main.mjd:.6f} (TAI)",
        "position": f"{main.ra:.6f}, {main.dec:+.6f} deg; pixel {main.x:.1f}, {main.y:.1f}",
        "flux": f"{main.flux:.0f} +- {main.flux_err:.0f} nJy, S/N {main.snr:.1f}",
        "flags": ", ".join(main.flags) or "none",
        "history": f"{main.n_history} earlier sources, {n_forced} forced",
    }
    for name, value in rows.items():
        click.echo(f"{name:<9} {value}")
