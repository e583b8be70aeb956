"""The demonstration on emulators: the whole deployment, a night in real time, an audit and a page.

python -m local_cloud.demo_cloud NIGHT FOLDER [kafka]

With kafka the events pass through a real broker, a schema registry and the bridge.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from local_cloud.bridge_world import Observatory
from local_cloud.brokers import KafkaBroker, SchemaRegistry
from local_cloud.cloud import Cloud, Service
from local_cloud.gsutil import GsutilLanding, has_gsutil
from local_cloud.servers import ServerMissingError
from prompt_processing.domain.outcome import Status
from prompt_processing.domain.visit import DetectorVisit, DetectorVisitKey, parse_message
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.messaging.pubsub import PubSubPublisher
from prompt_processing.night.clock import clock_for
from prompt_processing.night.folder import read_night
from prompt_processing.night.landing import Landing
from prompt_processing.night.plan import Action, Publish, Timing, plan
from prompt_processing.night.play import NightPlayer, RealTime, Report
from prompt_processing.storage import database, object_store

INSTANCES = 2
"""Activators: as with concurrency 1 on Cloud Run, each takes one visit at a time."""
TIMEOUT = 300.0
"""Longest time from the last image until its visit is finished [s]."""


def main(night: Path, folder: Path, events: str = "pubsub") -> None:
    """Play a night into a deployment that lives as long as this takes."""
    with ExitStack() as opened:
        say("starting the Pub/Sub emulator, the storage server and PostgreSQL")
        cloud = opened.enter_context(Cloud(folder / "repo"))
        cloud.use()
        say("preparing the repository: calibs, reference catalogue and templates, in buckets and databases")
        cloud.prompt("night", "prepare", night, "--repo", cloud.repo, show=True)
        actions = plan(read_night(night, say), timing=Timing(), faults={}, seed=0, on_error=say)
        clock = clock_for(actions, start_in=30.0)
        settings = {"PROMPT_WORKER__CLOCK_OFFSET_S": f"{clock.offset:.3f}"}
        say(f"starting the services: {INSTANCES} activators that messages are pushed to, and arrivals")
        workers = [opened.enter_context(cloud.activator(**settings)) for _ in range(INSTANCES)]
        arrivals = opened.enter_context(cloud.arrivals(**settings))
        opened.enter_context(cloud.push(cloud.topology.activator, *workers, audience="activator"))
        opened.enter_context(cloud.push(cloud.topology.arrivals, arrivals, audience="arrivals"))
        announce = _announcer(opened, cloud, settings, events)
        NightPlayer(
            folder=night / "raw",
            landing=_landing(cloud, folder),
            announce=announce,
            pace=RealTime(clock),
            report=Report(progress=_progress, fault=say, error=say),
            threads=4,
        ).play(actions)
        failed = _wait(cloud, actions)
        _show(workers)
        for command in (
            ("status", cloud.repo),
            ("audit", cloud.repo, "--events", night),
            ("night", "report", cloud.repo, "--night", night, "--out", folder / "report.html"),
        ):
            cloud.prompt(*command, show=True, **settings)
    if failed:
        raise SystemExit(f"{failed} visits were not processed")
    say(f"the page is at file://{folder / 'report.html'}")


def _announcer(
    opened: ExitStack, cloud: Cloud, settings: Mapping[str, str], events: str
) -> Callable[[Publish], None]:
    """Return what makes events known: on Pub/Sub, or on a Kafka from which the bridge takes them there."""
    if events != "kafka":
        publisher = PubSubPublisher(cloud.topology.next_visit)
        return lambda action: publisher.publish(action.bodies)
    say("starting Kafka, a schema registry and the bridge")
    kafka, registry = opened.enter_context(KafkaBroker()), opened.enter_context(SchemaRegistry())
    observatory = Observatory.on(kafka, registry)
    own = observatory.settings(kafka.bootstrap, registry.url)
    opened.enter_context(Service("kafka_bridge", {**cloud.environment, **settings, **own}, "main.py"))
    return lambda action: observatory.events.announce(action.event)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _progress(what: str, done: int, total: int) -> None:
    say(f"{what}: {done} of {total} events and files")


def _landing(cloud: Cloud, folder: Path) -> Landing | GsutilLanding:
    if has_gsutil():
        say("the camera uploads with gsutil")
        return GsutilLanding(cloud.gcs, cloud.topology.incoming, folder / "gsutil")
    say("the camera uploads with the client library: gsutil is not installed")
    return Landing(object_store.root(f"gs://{cloud.topology.incoming}"))


def _wait(cloud: Cloud, actions: Sequence[Action]) -> int:
    """Wait until each visit has an outcome; return how many were not processed."""
    failed = 0
    ledger = SqlLedger(database.engine(cloud.environment["PROMPT_REPOSITORY__LEDGER"]))
    left = {key for action in actions if isinstance(action, Publish) for key in map(_key, action.bodies)}
    deadline = time.monotonic() + TIMEOUT
    while left:
        for key in list(left):
            record = ledger.find(key)
            if record is not None and record.outcome is not None:
                left.remove(key)
                failed += record.outcome.status is not Status.PROCESSED
                say(f"{key.group} detector {key.detector}: {record.outcome}")
        if time.monotonic() > deadline:
            raise SystemExit(f"not finished after {TIMEOUT:.0f} s: {', '.join(map(str, left))}")
        time.sleep(0.5)
    return failed


def _key(body: str) -> DetectorVisitKey:
    message = parse_message(body)
    assert isinstance(message, DetectorVisit)
    return message.key


def _show(services: Sequence[Service]) -> None:
    """Show what services have complained about."""
    for service in services:
        for line in service.lines():
            if line["severity"] in {"WARNING", "ERROR"}:
                say(f"{line['severity']}: {line['message']} {line.get('error') or line.get('exception', '')}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), *sys.argv[3:])
    except ServerMissingError as error:
        raise SystemExit(f"this needs a server that is not here: {error}") from error
