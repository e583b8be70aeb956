"""``prompt refcat``: reference catalogues."""

from pathlib import Path

import click

from prompt_processing.cli.options import existing_file, repo_argument
from prompt_processing.cli.progress import Progress


@click.group()
def refcat() -> None:
    """Ingest reference catalogues."""


@refcat.command("ingest")
@repo_argument
@click.argument("file", type=existing_file)
def refcat_ingest(repo: Path, file: Path) -> None:
    """Store the reference stars of FILE in REPO.

    FILE is an ECSV table with the columns id, ra, dec [deg], BAND_mag and BAND_magErr for each band.
    """
    from prompt_processing.repository.refcat import ingest_refcat

    with Progress() as progress:
        number = ingest_refcat(repo, file, progress=progress)
    click.echo(f"{file}: {number} stars")
