"""``prompt config``: settings."""

from pathlib import Path

import click

from prompt_processing.cli.options import repo_argument


@click.group()
def config() -> None:
    """Show settings."""


@config.command("show")
@repo_argument
def config_show(repo: Path) -> None:
    """Print the settings of REPO as YAML, passwords hidden, with where each value comes from."""
    import yaml

    from prompt_processing.config import Settings, origin, redacted

    values = redacted(Settings.load(repo))
    for section, entries in values.items():
        click.echo(f"{section}:")
        for name, value in entries.items():
            text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
            click.echo(f"  {name}: {text}  # {origin(section, name, repo)}")
