"""``prompt repo``: repositories."""

from pathlib import Path

import click

from prompt_processing.cli.options import new_folder, repo_argument


@click.group()
def repo() -> None:
    """Make and upgrade repositories."""


@repo.command("create")
@click.argument("repo", type=new_folder)
def repo_create(repo: Path) -> None:
    """Make an empty repository in the folder REPO.

    It gets a Butler, an APDB, a ledger and a settings file, prompt.yaml, that lists every setting.
    """
    from prompt_processing.factory.create import create_repository

    create_repository(repo)
    click.echo(f"{repo}: created")


@repo.command("upgrade")
@repo_argument
def repo_upgrade(repo: Path) -> None:
    """Bring the ledger of REPO to the version of this program.

    Nothing in it is lost. Stop the workers first.
    """
    from prompt_processing.factory.stores import upgrade_ledger

    before, after = upgrade_ledger(repo)
    click.echo(f"ledger: version {after}" + ("" if before == after else f", was {before or 'not there'}"))
