"""What every queue and every source of hints promises, on each of them."""

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from local_cloud.emulators import Proxy
from local_cloud.topology import make_topology, subscriber
from local_cloud.visits import detector_visit
from prompt_processing.domain.errors import StoreError
from prompt_processing.messaging.memory import MemoryHints, MemoryQueue
from prompt_processing.messaging.pubsub import PubSubHints, PubSubPublisher, PubSubQueue, attributes
from prompt_processing.messaging.sql import SqlQueue
from prompt_processing.storage import database

LONG = 30.0
"""A wait that ends earlier, because something comes."""
OVER = -1.0
"""Time for which a message is hidden that is over at once."""


SOON = 0.5
"""Time within which Pub/Sub delivers what is there [s]; a queue of our own does so at once."""


class PubSub(PubSubQueue):
    """Topic and subscription as one queue, on the emulator."""

    def __init__(self, topology, **options):
        super().__init__(topology.activator, **options)
        self.publish = PubSubPublisher(topology.next_visit).publish

    def receive(self, timeout):
        received = super().receive(max(timeout, SOON))
        if received is not None:
            self.extend(received)  # the deadline of the subscription holds before
        return received


@pytest.fixture(params=["memory", "sqlite", "postgres", "pubsub"])
def make(request, tmp_path):
    """Return a function that makes a queue."""
    if request.param == "memory":
        yield MemoryQueue
        return
    if request.param == "pubsub":
        topology = request.getfixturevalue("topology")
        made = []

        def new(**options):
            made.append(PubSub(topology, **options))
            return made[-1]

        yield new
        for queue in made:
            queue.close()
        return
    url = (
        f"sqlite:///{tmp_path}/queue.sqlite3"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    engine = database.engine(url)
    yield lambda **options: SqlQueue(engine, **options)
    engine.dispose()


@pytest.fixture
def topology(pubsub, gcs, monkeypatch):
    """Topics and subscriptions of this test alone."""
    name = uuid.uuid4().hex[:8]
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.host)
    return make_topology(
        pubsub.host,
        gcs.url,
        project=f"queues-{name}",
        incoming=f"in-{name}",
        products=f"out-{name}",
        exactly_once=True,
        hints=True,
    )


@pytest.fixture
def queue(make):
    return make()


def bodies(queue):
    """Receive everything that is there; return the texts."""
    found = []
    while (received := queue.receive(0.0)) is not None:
        found.append(received.delivery.body)
    return found


def test_each_message_comes_once_and_in_order_if_the_queue_has_one(queue):
    assert queue.receive(0.0) is None
    queue.publish(["a", "b"])
    queue.publish(["c"])
    queue.publish([])
    found = bodies(queue)
    assert found == ["a", "b", "c"] or (isinstance(queue, PubSub) and sorted(found) == ["a", "b", "c"])


def test_equal_messages_have_different_identifiers(queue):
    queue.publish(["a", "a"])
    first, second = queue.receive(LONG), queue.receive(LONG)
    assert first.delivery.body == second.delivery.body
    assert first.delivery.message_id != second.delivery.message_id


def test_a_message_that_is_not_acknowledged_comes_again(make):
    queue = make(hidden=OVER)
    queue.publish(["a"])
    first, second = queue.receive(LONG), queue.receive(LONG)
    assert first.delivery == second.delivery
    assert first.receipt != second.receipt
    assert (first.count, second.count) == (1, 2)


def test_what_is_acknowledged_never_comes_again(make):
    queue = make(hidden=OVER)
    queue.publish(["a", "b"])
    first = queue.receive(LONG)
    queue.ack(first)
    queue.ack(first)
    assert queue.receive(LONG).delivery.body == "b"


def test_whoever_lost_a_message_changes_nothing_about_it(make):
    queue = make(hidden=OVER)
    queue.publish(["a"])
    lost = queue.receive(LONG)
    kept = queue.receive(LONG)
    queue.retry(kept, delay=1000.0)
    queue.retry(lost)
    queue.extend(lost)
    queue.ack(lost)
    assert queue.receive(0.0) is None
    queue.retry(kept)
    assert queue.receive(LONG).count == 3


def test_a_message_that_is_given_back_comes_again_at_its_old_place(queue):
    queue.publish(["a", "b"])
    first = queue.receive(LONG)
    queue.retry(first)
    found = bodies(queue)
    assert found == ["a", "b"] or (isinstance(queue, PubSub) and sorted(found) == ["a", "b"])


def test_a_message_can_be_given_back_for_later(queue):
    queue.publish(["a"])
    received = queue.receive(LONG)
    queue.retry(received, delay=1000.0)
    assert queue.receive(0.0) is None
    queue.retry(received, delay=0.2)
    assert queue.receive(LONG).count == 2


def test_a_message_that_is_extended_stays_hidden(make):
    queue = make()
    queue.publish(["a"])
    received = queue.receive(LONG)
    queue.retry(received, delay=1.0)
    queue.extend(received)
    assert queue.receive(2.0) is None


def test_whoever_waits_gets_what_is_published_meanwhile(queue):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.receive, LONG)
        queue.publish(["a"])
        assert waiting.result().delivery.body == "a"


def test_each_message_goes_to_one_of_many_receivers(queue):
    sent = [str(number) for number in range(60)]
    queue.publish(sent)
    barrier = threading.Barrier(6)

    def receive(_):
        barrier.wait()
        found = []
        while (received := queue.receive(0.0)) is not None:
            found.append(received.delivery.body)
            queue.ack(received)
        return found

    with ThreadPoolExecutor(6) as pool:
        found = [body for part in pool.map(receive, range(6)) for body in part]
    # On PostgreSQL a receiver may go home while another one is about to take the last messages.
    found += bodies(queue)
    assert sorted(found, key=int) == sent


def test_messages_outlive_their_process(tmp_path):
    url = f"sqlite:///{tmp_path}/queue.sqlite3"
    SqlQueue(database.engine(url)).publish(["a"])
    assert bodies(SqlQueue(database.engine(url))) == ["a"]


def test_a_number_that_was_used_names_no_other_message(tmp_path):
    queue = SqlQueue(database.engine(f"sqlite:///{tmp_path}/queue.sqlite3"))
    queue.publish(["a"])
    first = queue.receive(LONG)
    queue.ack(first)
    queue.publish(["b"])
    second = queue.receive(LONG)
    queue.ack(first)
    queue.retry(second)
    assert bodies(queue) == ["b"]


def test_several_can_make_a_queue_at_the_same_time(postgres_url):
    engines = [database.engine(postgres_url) for _ in range(6)]
    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(SqlQueue, engines))
    for engine in engines:
        engine.dispose()


def test_a_database_that_is_not_there_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="queue"):
        SqlQueue(database.engine(f"sqlite:///{tmp_path}/nowhere/queue.sqlite3"))


def test_the_time_of_a_queue_in_memory_can_be_given():
    now = 100.0
    queue = MemoryQueue(hidden=60.0, now=lambda: now)
    queue.publish(["a"])
    queue.receive(LONG)
    now += 59.0
    assert queue.receive(0.0) is None
    now += 1.0
    assert queue.receive(LONG).count == 2


@pytest.fixture(params=["memory", "pubsub"])
def hints(request):
    """Return a source of hints with a function `give`."""
    if request.param == "memory":
        yield MemoryHints()
        return
    topology = request.getfixturevalue("topology")
    source = PubSubHints(topology.hints)
    source.give = lambda: PubSubPublisher(topology.image_arrived).publish(["an image has come"])
    # A hint that is on its way is one that has not come yet.
    wait = source.wait
    source.wait = lambda timeout: wait(max(timeout, SOON))
    yield source
    source.close()


def test_a_hint_wakes_whoever_waits_and_is_used_up(hints):
    assert not hints.wait(0.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hints.wait, LONG)
        hints.give()
        assert waiting.result()
    hints.give()
    hints.give()
    assert hints.wait(LONG)
    while hints.wait(0.0):
        assert not isinstance(hints, MemoryHints)


def test_messages_have_the_attributes_that_subscriptions_filter_by(topology):
    cancel = {"kind": "cancel", "instrument": "LATISS", "groupId": "g", "scriptSalIndex": 3}
    assert attributes(json.dumps(cancel)) == {
        "kind": "cancel", "schema_version": "1", "instrument": "LATISS", "group": "g"
    }  # fmt: skip
    assert attributes("no message") == {}
    PubSubPublisher(topology.next_visit).publish([detector_visit().model_dump_json()])
    with subscriber(topology.pubsub_host) as client:
        (found,) = client.pull(
            subscription=topology.activator, max_messages=1, timeout=LONG
        ).received_messages
    told = dict(found.message.attributes)
    assert told["dedup_key"] == f"LATISS:{told['group']}:0"
    assert {"kind", "schema_version", "instrument", "group", "detector", "survey"} < told.keys()


def test_a_subscription_that_does_not_exist_is_named(topology):
    # It may yet be made: a worker goes on asking.
    queue = PubSubQueue(f"projects/{topology.project}/subscriptions/nobody")
    with pytest.raises(StoreError, match="nobody"):
        queue.receive(LONG)
    with pytest.raises(StoreError, match="nobody"):
        PubSubPublisher(f"projects/{topology.project}/topics/nobody").publish(["a"])


def test_pubsub_out_of_reach_is_a_store_error_and_nothing_is_lost(pubsub, topology, monkeypatch):
    with Proxy("127.0.0.1", pubsub.port) as proxy:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", proxy.host)
        queue, publisher = PubSubQueue(topology.activator), PubSubPublisher(topology.next_visit)
        publisher.publish(["a"])
        proxy.cut()
        with pytest.raises(StoreError):
            publisher.publish(["b"])
        with pytest.raises(StoreError):
            queue.receive(LONG)
        proxy.mend()
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            try:
                received = queue.receive(LONG)
            except StoreError:
                continue
            break
        assert received.delivery.body == "a"
        queue.ack(received)
        queue.close()


def test_a_queue_that_is_closed_receives_nothing(topology):
    queue = PubSubQueue(topology.activator)
    assert queue.receive(0.0) is None
    queue.close()
    PubSubPublisher(topology.next_visit).publish(["a"])
    assert queue.receive(SOON) is None
    other = PubSubQueue(topology.activator)
    assert other.receive(LONG).delivery.body == "a"
    other.close()
