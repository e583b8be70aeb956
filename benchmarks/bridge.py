"""The bridge on a real broker, registry and the Pub/Sub emulator: latency, backlog, memory.

make bench-bridge, or: python benchmarks/bridge.py [latency] [backlog] [publish] [restart]
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
from google.cloud.pubsub_v1 import PublisherClient

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools"))
from local_cloud.bridge_world import Observatory, PubSubReceiver, bridge_service, event, keys
from local_cloud.brokers import KafkaBroker, SchemaRegistry
from local_cloud.cloud import Service
from local_cloud.emulators import PubSubEmulator
from local_cloud.fork import CONTEXT
from prompt_processing.domain.visit import fan_out
from prompt_processing.factory.bridge import BridgeFactory
from prompt_processing.messaging.attributes import attributes
from prompt_processing.messaging.pubsub import PubSubPublisher
from prompt_processing.runtime import logs
from prompt_processing.runtime.signals import stop_on_signals

LATENCY_VISITS = 100
BACKLOG_VISITS = 1000
PUBLISH_VISITS = 100
ROUNDS = 5


class World:
    """Servers, and a bridge to start when it is wanted."""

    def __init__(self, opened: ExitStack) -> None:
        self.kafka = opened.enter_context(KafkaBroker())
        self.registry = opened.enter_context(SchemaRegistry())
        self.pubsub = opened.enter_context(PubSubEmulator())

    @contextmanager
    def topics(self) -> Iterator[tuple[Observatory, PubSubReceiver, dict[str, str]]]:
        """Provide topics of their own, and the settings of a bridge between them."""
        observatory = Observatory.on(self.kafka, self.registry)
        with PubSubReceiver(self.pubsub.host) as receiver:
            own = {"PROMPT_PUBSUB__TOPIC": receiver.topic, "PUBSUB_EMULATOR_HOST": self.pubsub.host}
            settings = observatory.settings(self.kafka.bootstrap, self.registry.url, **own)
            yield observatory, receiver, settings


def latency(world: World) -> None:
    with world.topics() as (observatory, receiver, settings), bridge_service(settings) as service:
        for number in range(LATENCY_VISITS):
            group = f"g{number}"
            observatory.announce(group, "LSSTCam")
            receiver.wait_for(keys(group, instrument="LSSTCam"))
        seconds = np.array([line["seconds"] for line in sent(service)]) * 1000
        p50, p99 = np.percentile(seconds, [50, 99])
        print(
            f"latency: record written, to the last of 189 messages acknowledged  {len(seconds)} visits: "
            f"p50 {p50:.0f}  p99 {p99:.0f} ms   goal p50 150, p99 400 ms   "
            f"first (it joins its group) {seconds[0]:.0f} ms, slowest other {seconds[1:].max():.0f} ms"
        )


def backlog(world: World) -> None:
    with world.topics() as (observatory, _, settings):
        groups = [f"g{number}" for number in range(BACKLOG_VISITS)]
        for group in groups:
            observatory.announce(group, "LSSTCam")
        with bridge_service(settings) as service:
            memory = {}
            while (done := len(sent(service))) < BACKLOG_VISITS:
                memory[done] = psutil.Process(service.pid).memory_info().rss / 1e6
                time.sleep(0.5)
            memory[done] = psutil.Process(service.pid).memory_info().rss / 1e6
            times = [np.datetime64(line["time"].removesuffix("Z"), "us") for line in sent(service)]
        rate = (BACKLOG_VISITS - 1) / ((times[-1] - times[0]) / np.timedelta64(1, "s"))
        early = next(size for done, size in memory.items() if done >= BACKLOG_VISITS / 10)
        print(
            f"backlog: {BACKLOG_VISITS} visits of 189 messages: {rate:.1f} visits/s   goal 40   "
            f"memory {early:.0f} MB after a tenth, {memory[done]:.0f} MB at the end"
        )


class BatchingPublisher:
    """The alternative: the client library's own batches, one future per message."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._client = PublisherClient()

    def publish(self, bodies: Sequence[str], origin: Mapping[str, str]) -> None:
        futures = [
            self._client.publish(self._topic, body.encode(), **attributes(body), **origin) for body in bodies
        ]
        for future in futures:
            future.result(timeout=30)


def publish(world: World) -> None:
    """Compare two ways to publish the 189 messages of a visit, in turns."""
    os.environ["PUBSUB_EMULATOR_HOST"] = world.pubsub.host
    bodies = [visit.model_dump_json() for visit in fan_out(event("g", "LSSTCam"), range(189))]
    with PubSubReceiver(world.pubsub.host) as receiver:
        ways = {"one request": PubSubPublisher(receiver.topic), "batching": BatchingPublisher(receiver.topic)}
        found: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, publisher in ways.items():
                for _ in range(PUBLISH_VISITS // ROUNDS):
                    began = time.perf_counter()
                    publisher.publish(bodies, {"source_topic": "t"})
                    found[way].append(time.perf_counter() - began)
    ours, theirs = (np.median(seconds) * 1000 for seconds in found.values())
    print(
        f"publish: 189 messages until all are acknowledged: one request {ours:.0f} ms, "
        f"the library's batching client {theirs:.0f} ms, ratio {theirs / ours:.1f}"
    )


class Bridge:
    """A bridge in a process of its own, with or without a name in its group (static membership)."""

    def __init__(self, settings: Mapping[str, str], name: str | None) -> None:
        self.process = CONTEXT.Process(target=_run, args=(dict(settings), name), daemon=True)
        self.process.start()


def _run(settings: dict[str, str], name: str | None) -> None:
    os.environ.update(settings)
    logs.configure(("prompt_processing=ERROR",))
    stop = stop_on_signals()
    factory = BridgeFactory(Path("/nonexistent"))
    if name:
        factory._client["group.instance.id"] = name  # noqa: SLF001 (no setting gives one)
    factory.bridge(factory.group_source()).run(stop)


def restart(world: World) -> None:
    """Measure what a successor costs: from the announcement of a visit, when the first bridge is ended."""
    for way in ("rolling", "stop, then start", "kill, then start"):
        for kind in ("dynamic", "static"):
            seconds = []
            for number in range(ROUNDS):
                with world.topics() as (observatory, receiver, settings):
                    seconds.append(_succeed(observatory, receiver, settings, way, kind, number))
            middle, most = np.median(seconds), max(seconds)
            print(f"restart: {way}, {kind} members: median {middle:.1f} s, most {most:.1f} s", flush=True)


def _succeed(
    observatory: Observatory,
    receiver: PubSubReceiver,
    settings: Mapping[str, str],
    way: str,
    kind: str,
    number: int,
) -> float:
    # Static members that run side by side need names of their own.
    names = [None, None] if kind == "dynamic" else ["b", "a"] if way == "rolling" else ["a", "a"]
    first = Bridge(settings, names[0])
    observatory.announce("before", "LSSTCam")
    receiver.wait_for(keys("before", instrument="LSSTCam"))
    if way == "rolling":
        second = Bridge(settings, names[1])
        time.sleep(5.0 + number / ROUNDS)  # it is in the group, at any moment of its heartbeat
    began = time.monotonic()
    observatory.announce("after", "LSSTCam")
    (first.process.kill if way.startswith("kill") else first.process.terminate)()
    first.process.join()
    if way != "rolling":
        second = Bridge(settings, names[1])
    observatory.announce("last", "LSSTCam")
    receiver.wait_for(keys("after", "last", instrument="LSSTCam"))
    taken = time.monotonic() - began
    second.process.kill()
    return taken


def sent(service: Service) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in service.log().splitlines() if line.startswith("{"))
    return [line for line in lines if line["message"] == "event sent"]


BENCHMARKS = {"latency": latency, "backlog": backlog, "publish": publish, "restart": restart}

if __name__ == "__main__":
    with ExitStack() as opened:
        world = World(opened)
        for name in sys.argv[1:] or BENCHMARKS:
            BENCHMARKS[name](world)
