"""``prompt repo``: repositories."""

from pathlib import Path

import click

from prompt_processing.cli.options import new_folder


@click.group()
def repo() -> None:
    """Make repositories."""


@repo.command("create")
@click.argument("repo", type=new_folder)
def repo_create(repo: Path) -> None:
    """Make an empty repository in the folder REPO.

    It gets a Butler, an APDB, a ledger and a settings file, prompt.yaml, that lists every setting.
    """
    from prompt_processing.repository.create import create_repository

    create_repository(repo)
    click.echo(f"{repo}: created")
