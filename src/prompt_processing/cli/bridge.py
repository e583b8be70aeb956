"""``prompt bridge``: from the observatory's Kafka to one message per detector."""

import json
from collections import Counter
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prompt_processing.cli.logs import configure_engines
from prompt_processing.cli.options import json_flag, repo_argument
from prompt_processing.cli.progress import Progress
from prompt_processing.runtime.signals import stop_on_signals

if TYPE_CHECKING:
    from prompt_processing.bridge.bridge import Bridge, Handled
    from prompt_processing.bridge.kafka_range import Range, RangeSource
    from prompt_processing.bridge.records import Record
    from prompt_processing.factory.bridge import BridgeFactory

_MARKS = {
    True: click.style("ok", fg="green"),
    False: click.style("WRONG", fg="red"),
    None: click.style("?", fg="yellow"),
}
dry_run_flag = click.option("--dry-run", is_flag=True, help="Only print the messages that would be sent.")


class UtcTime(click.ParamType[float]):
    """A time, UTC unless it says otherwise, as seconds since 1970."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-02-01T23:30:00.", param, ctx)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@click.group()
def bridge() -> None:
    """Bring visits from the observatory's Kafka to the workers."""


@bridge.command("run")
@repo_argument
def bridge_run(repo: Path) -> None:
    """Send one message per detector for each visit that Kafka announces, until told to stop.

    An event is done with when the sink has acknowledged all of its messages: whatever fails before that is
    tried again. SIGTERM and Ctrl-C end the bridge within 10 s; it also ends when another one of the same name
    takes over. REPO is the folder with the settings.
    """
    configure_engines("prompt_processing=INFO")
    stop = stop_on_signals()
    factory = open_factory(repo)
    worker = factory.bridge(factory.group_source())
    click.echo(f"{repo}: working", err=True)
    worker.run(stop)
    click.echo(f"{repo}: stopped", err=True)


@bridge.command("check")
@repo_argument
@click.option("--send", is_flag=True, help="Send a warm-up message for each instrument to the sink.")
@click.pass_context
def bridge_check(context: click.Context, repo: Path, *, send: bool) -> None:
    """Look whether brokers, topics and schemas are there, and with --send the sink.

    The exit status is 1 if something is not.
    """
    fine = True
    for found in open_factory(repo).check(send=send):
        fine = fine and found.fine is not False
        click.echo(f"{found.name}: {_MARKS[found.fine]}: {found.text}")
    context.exit(0 if fine else 1)


@bridge.command("replay")
@repo_argument
@click.option(
    "--from", "begin", type=UtcTime(), required=True, metavar="TIME", help="First time, UTC, in ISO 8601."
)
@click.option("--to", "end", type=UtcTime(), metavar="TIME", help="Time after the last one.  [default: now]")
@dry_run_flag
@click.pass_context
def bridge_replay(
    context: click.Context, repo: Path, begin: float, end: float | None, *, dry_run: bool
) -> None:
    """Send the visits once more that Kafka was told of in some time, whatever was sent before.

    This is safe at any time: a worker that gets a visit which is done, or which another one is working on,
    does nothing. Visits are sent however old they are; a worker records those that are too old for it as
    skipped. What cannot be sent is logged, makes no dead letter, and makes the exit status 1.
    """
    end = datetime.now(UTC).timestamp() if end is None else end
    if begin >= end:
        raise click.BadParameter("must be later than --from.", param_hint="--to")
    factory = open_factory(repo)
    source = factory.range_source()
    ranges = source.between(factory.topics, begin, end)
    worker = factory.bridge(source, expiry=inf, keep_letters=False, dry_run=dry_run)
    send_ranges(context, worker, source, ranges, "events would be" if dry_run else "events were")


@bridge.group("dead-letters")
def dead_letters() -> None:
    """Look at records that could not be read, and read them again."""


@dead_letters.command("list")
@repo_argument
@json_flag
def dead_letters_list(repo: Path, *, as_json: bool) -> None:
    """List all dead letters that Kafka still has: where each stood, and why it is one."""
    from prompt_processing.bridge.dead_letters import error_of, unwrap

    factory = open_factory(repo)
    source, topic = factory.letters_source(), factory.settings.bridge.dead_letters_topic
    waiting = {part.partition: part.begin for part in source.not_done(topic)}
    source = factory.letters_source(unwrapped=False)
    letters = read_all(source, source.everything(topic))
    rows = [
        {
            "letter": str(letter),
            "source": str(unwrap(letter)),
            "written": datetime.fromtimestamp(letter.timestamp, UTC).isoformat(timespec="seconds"),
            "size": len(letter.value or b""),
            "replayed": letter.offset < waiting[letter.partition],
            "error": error_of(letter),
        }
        for letter in letters
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = "replayed" if row["replayed"] else "waiting"
        click.echo(f"{row['letter']}  {row['written']}  {state}  {row['size']} bytes of {row['source']}")
        click.echo(f"    {row['error']}")
    click.echo(f"{len(rows)} dead letters, {sum(not row['replayed'] for row in rows)} waiting")


@dead_letters.command("replay")
@repo_argument
@dry_run_flag
@click.pass_context
def dead_letters_replay(context: click.Context, repo: Path, *, dry_run: bool) -> None:
    """Read the dead letters that wait once more, and send their visits.

    One that cannot be sent this time either becomes a new dead letter, and the exit status is 1.
    """
    factory = open_factory(repo)
    source = factory.letters_source(commit=not dry_run)
    ranges = source.not_done(factory.settings.bridge.dead_letters_topic)
    worker = factory.bridge(source, expiry=inf, dry_run=dry_run)
    send_ranges(context, worker, source, ranges, "dead letters would be" if dry_run else "dead letters were")


def open_factory(repo: Path) -> "BridgeFactory":
    """Return what builds the bridge; its import takes seconds."""
    from prompt_processing.factory.bridge import BridgeFactory

    return BridgeFactory(repo)


def send_ranges(
    context: click.Context, worker: "Bridge", source: "RangeSource", ranges: "list[Range]", what: str
) -> None:
    """Send what stands in some ranges, say what became of it, and end with 1 if not all was sent."""
    from prompt_processing.bridge.bridge import Handled

    total, counts = source.read(ranges), Counter[Handled]()
    with Progress() as progress:
        progress("records", 0, total)

        def count(handled: "Handled") -> None:
            counts[handled] += 1
            progress("records", counts.total(), total)

        worker.run(stop_on_signals(), count)
    unsendable = counts[Handled.UNSENDABLE]
    click.echo(
        f"{counts[Handled.SENT]} {what} sent again, {counts[Handled.SKIPPED]} skipped, {unsendable} cannot be"
    )
    is_complete = source.ended and not counts[Handled.LEFT]
    if not is_complete:
        click.echo("Stopped before the end: give the same command again.", err=True)
    context.exit(0 if is_complete and not unsendable else 1)


def read_all(source: "RangeSource", ranges: "list[Range]") -> "list[Record]":
    """Return the records of some ranges, in the order of their writing."""
    source.read(ranges)
    found = []
    while not source.ended:
        if (record := source.receive(1.0)) is not None:
            found.append(record)
    source.close()
    return sorted(found, key=lambda record: record.timestamp)
