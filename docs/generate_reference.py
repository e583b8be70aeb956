"""Writes docs/reference/commands.md and settings.md from the code; a test checks that they are in step."""

from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from prompt_processing.cli import main
from prompt_processing.config import environment_name, plain, sections

REFERENCE = Path(__file__).parent / "reference"
WIDTH = 100
INTRODUCTION = """\
A setting is given in `REPO/prompt.yaml` as `section: {name: value}`, or in the environment, which wins.
In the environment a list is JSON: `["first.yaml", "second.yaml"]`.
`prompt config show REPO` prints what holds."""
NOTE = "<!-- Made by docs/generate_reference.py: change the code, not this page. -->"


def commands_page() -> str:
    """Return the page about the commands."""
    parts = ["# Commands", NOTE]
    for path, command in walk(main, "prompt"):
        context = click.Context(
            command,
            info_name=path,
            terminal_width=WIDTH,
            max_content_width=WIDTH,
            help_option_names=["-h", "--help"],
        )
        parts += [f"## {path}", f"```text\n{command.get_help(context).rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Return the page about the settings."""
    parts = ["# Settings", NOTE, INTRODUCTION]
    for section, model in sections().items():
        rows = ["| name | default | meaning |", "| --- | --- | --- |"]
        for name, field in model.model_fields.items():
            value = plain(field.default)
            default = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
            rows.append(f"| `{name}` | `{default}` | {field.description} |")
        example = environment_name(section, next(iter(model.model_fields)))
        parts += [
            f"## {section}",
            f"{model.header}. In the environment for example `{example}`.",
            "\n".join(rows),
        ]
    return "\n\n".join(parts) + "\n"


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from walk(command.commands[name], f"{path} {name}")


if __name__ == "__main__":
    (REFERENCE / "commands.md").write_text(commands_page(), encoding="utf-8")
    (REFERENCE / "settings.md").write_text(settings_page(), encoding="utf-8")
