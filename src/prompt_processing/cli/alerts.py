"""``prompt alerts``: what changed in the sky."""

import json
from pathlib import Path
from typing import Any

import click

from prompt_processing.cli.options import json_flag, new_file, repo_argument

_ORDERS = {"snr": lambda alert: -alert.snr, "id": lambda alert: alert.id, "time": lambda alert: alert.mjd}
_HEADING = (
    f"{'id':>19}  {'object':>19}  {'visit':>19}  {'ra [deg]':>10} {'dec [deg]':>10} {'S/N':>6}  flux [nJy]"
)


@click.group()
def alerts() -> None:
    """List and show alerts."""


@alerts.command("list")
@repo_argument
@click.option("--limit", type=click.IntRange(min=1), help="Show only the first alerts.")
@click.option(
    "--order", type=click.Choice(list(_ORDERS)), default="snr", show_default=True, help="Order of the list."
)
@click.option("--all", "with_flagged", is_flag=True, help="Also alerts with a disqualifying flag.")
@json_flag
def alerts_list(repo: Path, *, limit: int | None, order: str, with_flagged: bool, as_json: bool) -> None:
    """List the alerts in the archive of REPO.

    Those with a flag that says that they are no real sources are left out by default.
    """
    from prompt_processing.config import Settings
    from prompt_processing.repository.central import require_repository
    from prompt_processing.views.collect import alerts_of
    from prompt_processing.views.data import plain

    require_repository(repo)
    everything = alerts_of(Settings.load(repo).repository)
    found = [alert for alert in everything if with_flagged or not alert.disqualified]
    chosen = sorted(found, key=_ORDERS[order])[:limit]
    if as_json:
        click.echo(json.dumps(plain(chosen), indent=2))
        return
    click.echo(_HEADING)
    for alert in chosen:
        click.echo(
            f"{alert.id:>19}  {alert.object_id or '-':>19}  {alert.visit:>19}  {alert.ra:>10.5f} "
            f"{alert.dec:>+10.5f} {alert.snr:>6.1f}  {alert.flux:.0f} +- {alert.flux_err:.0f}"
        )
    click.echo(f"{len(chosen)} of {len(found)} alerts")


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
