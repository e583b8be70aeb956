"""``prompt calibs``: calibration products."""

from pathlib import Path

import click

from prompt_processing.cli.options import night_argument, repo_argument
from prompt_processing.cli.progress import Progress


@click.group()
def calibs() -> None:
    """Build calibs: bias, dark, flat, gains and defects."""


@calibs.command("build")
@repo_argument
@night_argument
def calibs_build(repo: Path, night: Path) -> None:
    """Build bias, dark, flat, gains and defects from the raws under NIGHT/calib.

    The products are certified in REPO with the time range in which they are valid.
    """
    from prompt_processing.repository.calibs import build_calibs

    with Progress() as progress:
        build_calibs(repo, night, progress=progress)
