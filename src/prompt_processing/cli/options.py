"""Arguments and options that several commands share."""

from pathlib import Path

import click

# Absolute paths: workers in other processes and the Butler take relative ones as relative to somewhere else.
existing_folder = click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path)
new_folder = click.Path(file_okay=False, resolve_path=True, path_type=Path)
existing_file = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
new_file = click.Path(dir_okay=False, writable=True, resolve_path=True, path_type=Path)

repo_argument = click.argument("repo", type=existing_folder)
night_argument = click.argument("night", type=existing_folder)
repo_option = click.option(
    "--repo", required=True, type=new_folder, help="Folder of the repository.", metavar="REPO"
)
night_option = click.option(
    "--night",
    "day_obs",
    type=click.IntRange(1970_01_01, 2286_12_31),
    metavar="YYYYMMDD",
    help="Observing day; a day ends at noon, TAI.  [default: the newest one]",
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="Show only the first N.",
)
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
