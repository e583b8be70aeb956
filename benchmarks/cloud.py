"""The deployment on Google Cloud, played by emulators on this machine: how soon, how fast, how long.

Real are Pub/Sub's messages, the notifications of the bucket, the push of messages by our agent, PostgreSQL,
and our services under gunicorn. Everything shares the cores of one machine, which no deployment does. Objects
are kept by fake-gcs-server in files.

start    from a visit's message to its claim in the ledger, one visit at a time
arrival  from the end of an upload to the start of ingest in the worker that waits for it
burst    from the messages of one visit of LSSTCam to the start of its 189 workers
steady   detector-visits at a steady rate: what piles up, what is lost
butler   how many detector-visits engines with a Butler and trivial tasks get through
cold     from the start of a worker until it is ready
"""

import argparse
import functools
import itertools
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools"))

from engine import fresh
from google.pubsub_v1 import Subscription

from local_cloud import load
from local_cloud.cloud import LEASE, PUSHER, Cloud
from local_cloud.measure import PATIENCE, Ledger, report, wait_for
from local_cloud.push_agent import PushAgent
from local_cloud.sampler import sampled_runner
from local_cloud.servers import ServerMissingError
from local_cloud.topology import PULL_DEADLINE, subscriber
from prompt_processing.arrivals.hints import HintRelay
from prompt_processing.cli.logs import configure
from prompt_processing.config import PushSettings, WorkerSettings
from prompt_processing.domain.clock import WallClock, utc_seconds
from prompt_processing.domain.outcome import Disposition
from prompt_processing.domain.visit import parse_message
from prompt_processing.factory.worker import Factory
from prompt_processing.ledger.port import DetectorVisitRecord
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.messaging.port import Received
from prompt_processing.messaging.pubsub import PubSubHints, PubSubQueue
from prompt_processing.runtime.fork_server import preload
from prompt_processing.storage import database, object_store
from prompt_processing.worker.engine import Engine
from prompt_processing.worker.supervisor import Slot, Supervisor
from prompt_processing.worker.worker import Worker
from support import steady_load
from support.central import message, prepare_central

WARM_UP = 5
"""Visits that come before those that are measured."""
PROCESSES = 4
"""Into how many processes the workers of a burst are put."""
WAITING = -2.0
"""When the shutter closes of a visit whose image is about to come [s]: it was read out meanwhile."""
SETTLE = 2.0
"""After this time without work connections are closed [s]."""
PROFILED = 60
"""Visits during which it is looked where the time goes ..."""
TOP = 25
"""... and how many functions are shown."""


def start(folder: Path, options: argparse.Namespace) -> None:
    """Measure from the message to the claim, with the real workers on a repository that has no inputs."""
    with Cloud(folder / "repo") as cloud:
        cloud.prompt("repo", "create", cloud.repo)
        cloud.use()
        ledger, chance = Ledger(cloud), np.random.default_rng(1)
        for way in ("pulled", "pushed"):
            with worker(cloud, way):
                times = []
                for index in range(options.messages + WARM_UP):
                    time.sleep(chance.uniform(0.3, 1.3))
                    visit = load.announced_now(f"{way}-{index}", close_in=30.0)
                    begin = ledger.publish(visit)
                    (record,) = ledger.finished(visit)
                    times.append(record.attempts[0].started_at - begin)
            report(f"start: message {way}, to the claim", times[WARM_UP:], 0.3)


@contextmanager
def worker(cloud: Cloud, way: str) -> Iterator[load.Probed]:
    """Run a worker to which messages are pushed, or which pulls them."""
    with load.probed(cloud, way) as service, ExitStack() as stack:
        if way == "pushed":
            push = cloud.push(cloud.topology.activator, service, audience="activator", instance_concurrency=1)
            stack.enter_context(push)
        yield service


def arrival(folder: Path, options: argparse.Namespace) -> None:
    """Measure from the end of an upload to the start of ingest in a worker that waits for the image."""
    with Cloud(folder / "repo") as cloud, ExitStack() as stack:
        cloud.use()
        hints = f"projects/{cloud.topology.project}/subscriptions/hints"
        with subscriber(cloud.pubsub.host) as client:
            client.create_subscription(
                request=Subscription(
                    name=hints, topic=cloud.topology.image_arrived, ack_deadline_seconds=PULL_DEADLINE
                )
            )
        service = stack.enter_context(cloud.arrivals())
        stack.enter_context(cloud.push(cloud.topology.arrivals, service, audience="arrivals"))
        preload("prompt_processing.factory.engine_imports")
        sequence = 0
        for way in ("without hints", "with hints"):
            build = functools.partial(load.waiting_runner, cloud.repo)
            with engines(cloud, build, 1) as supervisor:
                relay = HintRelay(PubSubHints(hints), supervisor.hint)
                times = []
                with relay if way == "with hints" else nullcontext():
                    for _ in range(options.images + WARM_UP):
                        sequence += 1
                        times.append(one_arrival(cloud, sequence))
            report(f"arrival: upload to start of ingest, {way}", times[WARM_UP:], 1.0)


def one_arrival(cloud: Cloud, sequence: int) -> float:
    """Announce a visit, upload its image a moment later, and return how long that went unseen [s]."""
    ledger, chance = Ledger(cloud), np.random.default_rng(sequence)
    visit = load.announced_now(f"arrival-{sequence}", close_in=WAITING)
    ledger.publish(visit)
    ledger.wait_until_working(visit)
    time.sleep(chance.uniform(0.5, 1.5))
    incoming = object_store.root(f"gs://{cloud.topology.incoming}")
    uploaded = load.put_image(incoming, visit, load.raw_key(visit, sequence))
    (record,) = ledger.finished(visit)
    assert record.outcome is not None
    return float(record.outcome.flags[0]) - uploaded


@contextmanager
def engines(cloud: Cloud, build: Any, number: int, **settings: Any) -> Iterator[Supervisor]:
    """Run a supervisor in this process that pulls, with some engines."""
    ledger = SqlLedger(database.engine(cloud.environment["PROMPT_REPOSITORY__LEDGER"]))
    limits = WorkerSettings(**settings)
    slots = []
    for index in range(number):
        engine = Engine(build, ledger=ledger, clock=WallClock(), settings=limits)
        slots.append(Slot(Worker(ledger=ledger, runner=engine, owner=f"w/{index}", settings=limits), engine))
    queue = PubSubQueue(cloud.topology.activator, hidden=LEASE)
    with Supervisor(queue=queue, slots=slots, sweep=list, settings=limits) as supervisor:
        yield supervisor


def burst(folder: Path, options: argparse.Namespace) -> None:
    """Measure from the messages of one visit of LSSTCam to the start of its workers."""
    for way, workers in (("pulled", pulling), ("pushed", pushed)):
        # Servers of its own: messages that come to pulls that were given up are hidden for a while.
        with Cloud(folder / way) as cloud:
            cloud.use()
            ledger, rounds = Ledger(cloud), []
            with workers(cloud, ledger.url, load.N_DETECTORS):
                for number in range(options.rounds + 1):
                    time.sleep(SETTLE)
                    rounds.append(one_burst(ledger, f"{way}-{number}"))
        for what in rounds[0]:
            times = np.array([found[what] for found in rounds[1:]])  # the first one warms up
            name = f"burst: {load.N_DETECTORS} messages {way}"
            report(f"{name}, first {what}", times.min(axis=1))
            report(f"{name}, median {what}", np.median(times, axis=1))
            goal = 2.0 if what == "started" else None
            report(f"{name}, last {what}", times.max(axis=1), goal, "each")


def one_burst(ledger: Ledger, group: str) -> dict[str, list[float]]:
    """Announce one visit on all detectors, and return after what times that had which effect."""
    visits = [
        load.announced_now(group, close_in=30.0, detector=detector, instrument="LSSTCam")
        for detector in load.LSSTCAM.detectors
    ]
    begin = ledger.publish(*visits)
    time.sleep(load.HOLD)  # nobody asks the ledger meanwhile
    moments = moments_of(ledger.finished(*visits, every=0.5))
    return {what: [moment - begin for moment in found] for what, found in moments.items()}


def moments_of(records: Sequence[DetectorVisitRecord]) -> dict[str, list[float]]:
    """Return when messages were in the hands of workers, claimed, and work on them began."""
    found: dict[str, list[float]] = {"in hand": [], "claimed": [], "started": []}
    for record in records:
        assert record.outcome is not None
        flags = dict(flag.split() for flag in record.outcome.flags)
        found["in hand"].append(float(flags["received"]))
        found["claimed"].append(record.attempts[0].started_at)
        found["started"].append(float(flags["started"]))
    return found


@contextmanager
def pulling(cloud: Cloud, ledger_url: str, number: int) -> Iterator[None]:
    """Run workers that pull."""
    with helpers(load.pull_loops, number, ledger_url, cloud.topology.activator):
        yield


@contextmanager
def pushed(cloud: Cloud, ledger_url: str, number: int) -> Iterator[None]:
    """Run workers that messages are pushed to."""
    settings = PushSettings(
        audience="activator",
        callers=(PUSHER,),
        keys_url=cloud.issuer.jwks_url,
        subscriptions=(cloud.topology.activator,),
    )
    with (
        helpers(load.push_server, number, ledger_url, settings) as addresses,
        PushAgent(
            cloud.pubsub.host,
            cloud.topology.activator,
            addresses,
            issuer=cloud.issuer,
            audience="activator",
            email=PUSHER,
            instance_concurrency=-(-number // PROCESSES),
        ),
    ):
        yield


@contextmanager
def helpers(target: Callable[..., None], number: int, *arguments: Any) -> Iterator[list[Any]]:
    """Run some workers in processes of their own; yields what these say when they are ready."""
    context, running = multiprocessing.get_context("spawn"), []
    shares = [len(share) for share in np.array_split(np.arange(number), PROCESSES)]
    for index, share in enumerate(shares):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=target, args=(theirs, f"helper {index}", share, *arguments), daemon=True
        )
        process.start()
        theirs.close()  # if it ends too early, that is seen at our end
        running.append((process, ours))
    try:
        yield [connection.recv() for _, connection in running]
    finally:
        for _, connection in running:
            with suppress(OSError):
                connection.send(None)
        for process, _ in running:
            process.join(PATIENCE)
            process.kill()


def steady(folder: Path, options: argparse.Namespace) -> None:
    """Hold a rate of detector-visits, and print what becomes of everything that could pile up."""
    number = round(options.minutes * 60 * options.rate)
    with Cloud(folder / "repo") as cloud:
        cloud.use()
        preload("prompt_processing.factory.engine_imports")
        build = functools.partial(steady_load.steady_runner, cloud.repo)
        with engines(cloud, build, options.engines) as supervisor:
            handled: set[str] = set()

            def on_handled(received: Received, said: Disposition) -> None:
                if said is Disposition.ACK:
                    handled.add(steady_load.name_of(parse_message(received.delivery.body)))

            supervisor.on_handled = on_handled
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            begin = time.time() + 10.0  # until the feeder has imported everything
            feeder = context.Process(
                target=steady_load.feed, args=(theirs, cloud.repo, begin, options.rate, number), daemon=True
            )
            feeder.start()
            theirs.close()
            watch = steady_load.Watch(cloud, begin, options.rate, number, handled)
            end = begin + number / options.rate
            time.sleep(max(begin - time.time(), 0.0))
            while time.time() + options.every <= end + 1.0:
                time.sleep(options.every)
                watch.look()
            with suppress(TimeoutError):  # what is missing then is counted below
                wait_for(lambda: len(handled) == number, 0.5, PATIENCE + end - time.time())
            print(f"steady: all done {time.time() - end:.1f} s after the last message was due")
            late, problems = ours.recv()
            feeder.join()
        watch.report()
        print(f"steady: the feeder was late by at most {late:.2f} s", *problems)
        account(Ledger(cloud).all(), number)


def account(records: Sequence[DetectorVisitRecord], number: int) -> None:
    """Print whether every visit that was announced has one outcome, and how long visits took."""
    once = sum(sum(attempt.outcome is not None for attempt in record.attempts) == 1 for record in records)
    again = sum(len(record.attempts) > 1 for record in records)
    ends = Counter(str(record.outcome) for record in records)
    print(f"steady: {number} visits announced, {once} with exactly one outcome, {number - once} others")
    print(f"steady: outcomes {dict(ends)}, {again} visits with more than one attempt")
    announced = [utc_seconds(record.visit.published) for record in records]
    starts = [record.attempts[0].started_at for record in records]
    report("steady: message to claim", [a - b for a, b in zip(starts, announced, strict=True)])
    report("steady: shutter to alerts", [record.times.latency or 0.0 for record in records])
    for stage in records[0].times.seconds:
        report(f"steady: stage {stage}", [record.times.seconds.get(stage, 0.0) for record in records])


def butler(folder: Path, options: argparse.Namespace) -> None:
    """Measure how many detector-visits engines get through, and where the time of one goes."""
    counts = (1, 2, 3)
    with Cloud(folder / "repo") as cloud:
        raws = prepare_central(
            cloud, folder, sum(counts) * WARM_UP + len(counts) * options.visits + 2 * PROFILED
        )
        cloud.use()
        noting = Factory(cloud.repo, WallClock())
        for key in raws:
            noting.note_arrival(key)
        indices = iter(range(1, len(raws)))
        for number in counts:
            with Factory(cloud.repo, WallClock()).supervisor(f"{number} engines", number, quiet):
                work(cloud, indices, number * WARM_UP)
                records = work(cloud, indices, options.visits)
            begin = min(record.attempts[0].started_at for record in records)
            end = max(record.attempts[-1].ended_at or 0.0 for record in records)
            print(f"butler: {number} engines: {len(records) / (end - begin):.2f} detector-visits per second")
            if number == 1:
                for stage in records[0].times.seconds:
                    times = [record.times.seconds.get(stage, 0.0) for record in records]
                    report(f"butler: 1 engine, stage {stage}", times)
        file = folder / "samples"
        with engines(cloud, functools.partial(sampled_runner, cloud.repo, file, WARM_UP), 1):
            work(cloud, indices, WARM_UP + PROFILED + 1)
    found = json.loads(file.read_text())
    total = sum(found["own"].values())
    for kind in ("own", "within"):
        print(f"butler: an engine during {found['visits']} visits, {kind} time: part, function")
        places = [one for one in Counter(found[kind]).most_common() if "contextlib" not in one[0]]
        for place, count in places[:TOP]:
            print(f"    {count / total:6.1%} {place}")


def quiet() -> None:
    """Set up logging of an engine."""
    configure(["ERROR"])


def work(cloud: Cloud, indices: Iterator[int], number: int) -> list[DetectorVisitRecord]:
    """Announce visits whose images are there, and return what is known of them when they are finished."""
    ledger = Ledger(cloud)
    before = ledger.n_finished()
    visits = [message(index) for index in itertools.islice(indices, number)]
    ledger.publish(*visits)
    keys = {visit.key for visit in visits}
    wait_for(lambda: ledger.n_finished() == before + number, every=0.5)
    found = [record for record in ledger.all() if record.visit.key in keys]
    failed = [record.outcome for record in found if str(record.outcome) != "processed (late)"]
    assert not failed, failed[0]
    return found


def cold(folder: Path, options: argparse.Namespace) -> None:
    """Measure from the start of a worker until it is ready."""
    with Cloud(folder / "repo") as cloud:
        cloud.prompt("repo", "create", cloud.repo)
        cloud.use()
        for way in ("pushed", "pulled"):
            alive, ready = [], []
            for _ in range(options.starts + 1):
                with load.probed(cloud, way) as service:
                    alive.append(service.alive_after)
                    ready.append(service.ready_after)
            print(f"cold: worker {way}, first start: alive {alive[0]:.2f} s, ready {ready[0]:.2f} s")
            report(f"cold: worker {way}, until it is alive", alive[1:])
            report(f"cold: worker {way}, until it is ready", ready[1:])
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in fresh(cloud.repo).items())
        print(f"cold: a fresh interpreter [s]: {parts}")


PARTS = {part.__name__: part for part in (start, arrival, burst, steady, butler, cold)}


def main() -> None:
    """Print one row for each figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", choices=[*PARTS, []], help="All by default.")
    parser.add_argument("--messages", type=int, default=60, help="start: messages for each way.")
    parser.add_argument("--images", type=int, default=40, help="arrival: images for each way.")
    parser.add_argument("--rounds", type=int, default=5, help="burst: visits for each way.")
    parser.add_argument("--minutes", type=float, default=10.0, help="steady: how long.")
    parser.add_argument("--rate", type=float, default=6.0, help="steady: detector-visits per second.")
    parser.add_argument("--engines", type=int, default=20, help="steady: engines.")
    parser.add_argument("--every", type=float, default=30.0, help="steady: time between two lines [s].")
    parser.add_argument("--visits", type=int, default=100, help="butler: visits for each number of engines.")
    parser.add_argument("--starts", type=int, default=5, help="cold: starts after the first one.")
    options = parser.parse_args()
    configure(["ERROR"])
    parts = options.parts or list(PARTS)
    if len(parts) > 1:
        # Each has processes and settings of its own, which must not be those of the one before.
        rest = [argument for argument in sys.argv[1:] if argument not in PARTS]
        for part in parts:
            subprocess.run([sys.executable, __file__, part, *rest], check=True)
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[parts[0]](Path(folder), options)
    except ServerMissingError as error:
        raise SystemExit(f"this needs a server that is not here: {error}") from error


if __name__ == "__main__":
    main()
