"""``prompt templates``: what science images are compared with."""

from pathlib import Path

import click

from prompt_processing.cli.options import night_argument, repo_argument
from prompt_processing.cli.progress import Progress


@click.group()
def templates() -> None:
    """Build templates from earlier epochs."""


@templates.command("build")
@repo_argument
@night_argument
def templates_build(repo: Path, night: Path) -> None:
    """Process the raws under NIGHT/template, warp them onto the skymap and co-add them.

    Calibs and a refcat must be in REPO.
    """
    from prompt_processing.repository.templates import build_templates

    with Progress() as progress:
        number = build_templates(repo, night, progress=progress)
    click.echo(f"{night}: templates of {number} patches")
