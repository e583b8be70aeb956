"""``prompt simulate``: make nights that never were."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from prompt_processing.cli.options import new_folder
from prompt_processing.cli.progress import Progress

if TYPE_CHECKING:
    from prompt_processing.simulation.profiles import Size


@click.group()
def simulate() -> None:
    """Make simulated nights."""


@simulate.command("night")
@click.argument("night", type=new_folder)
@click.option(
    "--instrument", default="LATISS", show_default=True, help="Camera to simulate: LATISS or LSSTCam."
)
@click.option(
    "--detectors",
    default="",
    metavar="NUMBERS",
    help="Detectors to simulate, for example 94,95.  [default: the one at the boresight]",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the sky and of all noise.")
@click.option(
    "--visits", default=3, show_default=True, type=click.IntRange(min=1), help="Number of science visits."
)
@click.option(
    "--size",
    default="full",
    show_default=True,
    type=click.Choice(["full", "small"]),
    help="Real amplifiers, or small ones for quick tries.",
)
def simulate_night_command(
    night: Path, instrument: str, detectors: str, seed: int, visits: int, size: "Size"
) -> None:
    """Write raws, events, a refcat and the truth of a simulated night into the folder NIGHT.

    Files that are there already are kept, so an interrupted simulation can be continued. The folder has the
    same layout as a real night (see docs/tutorial.md), plus the folder truth.
    """
    from prompt_processing.simulation.night import simulate_night

    try:
        numbers = [int(number) for number in detectors.split(",") if number]
    except ValueError as error:
        raise click.BadParameter(f"{detectors!r} is no list of numbers", param_hint="--detectors") from error
    with Progress() as progress:
        made = simulate_night(
            night,
            instrument=instrument,
            detectors=numbers,
            seed=seed,
            visits=visits,
            size=size,
            progress=progress,
        )
    transients = ", ".join(map(str, made.transients))
    where = f"{instrument} {', '.join(made.detectors)}"
    click.echo(f"{night}: {visits} visits of {where} on {made.day_obs} with {transients} transients")
