"""Writes the reference pages and the settings of the services from the code; a test checks them."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from prompt_processing.cli import main
from prompt_processing.config import environment_name, plain, sections
from prompt_processing.domain.visit import event_schema, message_schema

REFERENCE = Path(__file__).parent / "reference"
SERVICES = Path(__file__).parents[1] / "services"
BRIDGE_SECTIONS = ("kafka", "bridge", "redis", "webhook")
"""Sections that only the bridge reads."""


def _all_of(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sections()[name].model_fields) for name in names}


SETTINGS_OF_SERVICES: dict[str, dict[str, tuple[str, ...]]] = {
    "activator": _all_of(*(name for name in sections() if name not in BRIDGE_SECTIONS)),
    "kafka_bridge": {
        **_all_of(*BRIDGE_SECTIONS),
        "pubsub": ("topic",),
        "instruments": ("detectors", "detector_map"),
        "worker": ("expiry_s", "clock_offset_s"),
        "repository": ("queue",),
    },
    "relay": {
        "repository": ("decisions", "alerts", "metrics", "ledger"),
        "worker": ("clock_offset_s",),
    },
    "arrivals": {
        "repository": ("incoming", "arrivals", "ledger", "queue"),
        "worker": ("clock_offset_s",),
        "pubsub": ("topic",),
        "push": tuple(sections()["push"].model_fields),
    },
}
"""Which settings a service reads, by section."""
MARK = "<!-- settings -->"
WIDTH = 100
INTRODUCTION = """\
A setting is given in `REPO/prompt.yaml` as `section: {name: value}`, or in the environment, which wins.
In the environment lists and mappings are JSON: `["first.yaml", "second.yaml"]`, `{"LSSTCam": [94, 95]}`.
`prompt config show REPO` prints what holds."""
MESSAGES_INTRODUCTION = """\
What is sent for each detector of a visit, and for a visit that is cancelled, as JSON schema; then the event
on the observatory's Kafka (there as Avro, with more fields, which are not read). Sender and receiver check
both with the same code, `prompt_processing.domain.visit`.

Beside a message, for those who do not read it, stand as attributes (Pub/Sub), headers (Kafka) or fields
(Redis): `instrument`, `detector`, `group`, `survey`, `kind`, `schema_version`, `dedup_key`
(`instrument:group:detector`), and from the bridge `source_topic`, `source_partition`, `source_offset`,
`traceparent` ([W3C](https://www.w3.org/TR/trace-context/)) and `published_at`. There is no ordering key.
A Redis entry has the fields of the message by name as strings; an HTTP request is a CloudEvent with the
message as its data."""
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
            rows.append(f"| `{name}` | `{_default(field.default)}` | {field.description} |")
        example = environment_name(section, next(iter(model.model_fields)))
        parts += [
            f"## {section}",
            f"{model.header}. In the environment for example `{example}`.",
            "\n".join(rows),
        ]
    return "\n\n".join(parts) + "\n"


def messages_page() -> str:
    """Return the page about the messages."""
    parts = ["# Messages", NOTE, MESSAGES_INTRODUCTION]
    for title, schema in (("Messages for workers", message_schema()), ("Events", event_schema())):
        parts += [f"## {title}", f"```json\n{json.dumps(schema, indent=2)}\n```"]
    return "\n\n".join(parts) + "\n"


def service_page(name: str) -> str:
    """Return the page of a service: what is written there, and its settings after the mark."""
    written = (SERVICES / name / "README.md").read_text(encoding="utf-8").partition(MARK)[0]
    parts = [f"{written}{MARK}\n{NOTE}\n\n## Settings", "Lists and mappings are given as JSON."]
    for section, names in SETTINGS_OF_SERVICES[name].items():
        model = sections()[section]
        rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
        for setting in names:
            field = model.model_fields[setting]
            variable, default = environment_name(section, setting), _in_environment(field.default)
            rows.append(f"| `{variable}` | `{default}` | {field.description} |")
        parts += [f"{model.header}:", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _in_environment(value: object) -> str:
    return json.dumps(plain(value)) if isinstance(value, tuple | dict) else _default(value)


def _default(value: object) -> str:
    return yaml.safe_dump(plain(value), default_flow_style=True, width=1000).removesuffix("...\n").strip()


def walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from walk(command.commands[name], f"{path} {name}")


if __name__ == "__main__":
    (REFERENCE / "commands.md").write_text(commands_page(), encoding="utf-8")
    (REFERENCE / "messages.md").write_text(messages_page(), encoding="utf-8")
    (REFERENCE / "settings.md").write_text(settings_page(), encoding="utf-8")
    for service in SETTINGS_OF_SERVICES:
        (SERVICES / service / "README.md").write_text(service_page(service), encoding="utf-8")
