"""What every queue and every source of hints promises, on each of them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from prompt_processing import database
from prompt_processing.domain.errors import StoreError
from prompt_processing.messaging.memory import MemoryHints, MemoryQueue
from prompt_processing.messaging.sql import SqlQueue

LONG = 30.0
"""A wait that ends earlier, because something comes."""
OVER = -1.0
"""Time for which a message is hidden that is over at once."""


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def make(request, tmp_path):
    """Return a function that makes a queue."""
    if request.param == "memory":
        yield MemoryQueue
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
def queue(make):
    return make()


def bodies(queue):
    """Receive everything that is there; return the texts."""
    found = []
    while (received := queue.receive(0.0)) is not None:
        found.append(received.delivery.body)
    return found


def test_messages_come_in_the_order_of_their_publication_and_once(queue):
    assert queue.receive(0.0) is None
    queue.publish(["a", "b"])
    queue.publish(["c"])
    queue.publish([])
    assert bodies(queue) == ["a", "b", "c"]


def test_equal_messages_have_different_identifiers(queue):
    queue.publish(["a", "a"])
    first, second = queue.receive(0.0), queue.receive(0.0)
    assert first.delivery.body == second.delivery.body
    assert first.delivery.message_id != second.delivery.message_id


def test_a_message_that_is_not_acknowledged_comes_again(make):
    queue = make(hidden=OVER)
    queue.publish(["a", "b"])
    first, second = queue.receive(0.0), queue.receive(0.0)
    assert first.delivery == second.delivery
    assert first.receipt != second.receipt
    assert (first.count, second.count) == (1, 2)


def test_what_is_acknowledged_never_comes_again(make):
    queue = make(hidden=OVER)
    queue.publish(["a", "b"])
    first = queue.receive(0.0)
    queue.ack(first)
    queue.ack(first)
    assert queue.receive(0.0).delivery.body == "b"


def test_whoever_lost_a_message_changes_nothing_about_it(make):
    queue = make(hidden=OVER)
    queue.publish(["a"])
    lost = queue.receive(0.0)
    kept = queue.receive(0.0)
    queue.retry(kept, delay=1000.0)
    queue.retry(lost)
    queue.extend(lost)
    queue.ack(lost)
    assert queue.receive(0.0) is None
    queue.retry(kept)
    assert queue.receive(0.0).count == 3


def test_a_message_that_is_given_back_comes_again_at_its_old_place(queue):
    queue.publish(["a", "b"])
    first = queue.receive(0.0)
    queue.retry(first)
    assert bodies(queue) == ["a", "b"]


def test_a_message_can_be_given_back_for_later(queue):
    queue.publish(["a"])
    received = queue.receive(0.0)
    queue.retry(received, delay=1000.0)
    assert queue.receive(0.0) is None
    queue.retry(received, delay=0.2)
    assert queue.receive(LONG).count == 2


def test_a_message_that_is_extended_stays_hidden(make):
    queue = make()
    queue.publish(["a"])
    received = queue.receive(0.0)
    queue.retry(received)
    queue.extend(received)
    assert queue.receive(0.0) is None


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
    first = queue.receive(0.0)
    queue.ack(first)
    queue.publish(["b"])
    second = queue.receive(0.0)
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
    queue.receive(0.0)
    now += 59.0
    assert queue.receive(0.0) is None
    now += 1.0
    assert queue.receive(0.0).count == 2


def test_a_hint_wakes_whoever_waits_and_is_used_up():
    hints = MemoryHints()
    assert not hints.wait(0.0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hints.wait, LONG)
        hints.give()
        assert waiting.result()
    hints.give()
    hints.give()
    assert hints.wait(LONG)
    assert not hints.wait(0.0)
