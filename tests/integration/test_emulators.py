"""The stand-ins for Google Cloud do what tests of the services rely on."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.pubsub_v1 import PubsubMessage
from sqlalchemy import text

from local_cloud.emulators import GcsServer, Proxy, PubSubEmulator
from local_cloud.servers import LOOPBACK, Postgres
from local_cloud.topology import notify, publish, publisher, pull, storage, subscriber
from prompt_processing.storage import database

ROOT = Path(__file__).parents[2]
LONG = 20.0
"""A wait that ends earlier, because something comes."""


@pytest.fixture
def topology(own_topology):
    return own_topology()


def test_a_topology_is_made_once_and_may_be_asked_for_again(own_topology):
    made = own_topology(hints=True)
    assert own_topology(hints=True) == made
    assert (made.activator, made.hints) == (
        f"projects/{made.project}/subscriptions/activator-latiss",
        f"projects/{made.project}/subscriptions/hints",
    )
    with subscriber(made.pubsub_host) as client:
        subscription = client.get_subscription(subscription=made.activator)
    assert subscription.topic == made.next_visit
    assert subscription.filter == 'attributes.instrument = "LATISS"'
    assert subscription.ack_deadline_seconds == 20
    assert subscription.dead_letter_policy.dead_letter_topic == made.dead_letters
    assert subscription.dead_letter_policy.max_delivery_attempts == 5
    assert subscription.retry_policy.maximum_backoff.total_seconds() == 20.0
    own_topology(push_endpoint="http://127.0.0.1:9/", exactly_once=True)
    with subscriber(made.pubsub_host) as client:
        changed = client.get_subscription(subscription=made.activator)
    assert changed.push_config.push_endpoint == "http://127.0.0.1:9/"
    assert changed.ack_deadline_seconds == 600
    assert changed.enable_exactly_once_delivery


def test_the_arrival_of_an_object_is_told_once_to_each_subscription(own_topology):
    topology = own_topology(hints=True)
    own_topology()
    with storage(topology.gcs_url) as client:
        # A second one would tell everything twice.
        assert len(list(client.bucket(topology.incoming).list_notifications())) == 1
        client.bucket(topology.products).blob("LATISS/other").upload_from_string(b"x")
        client.bucket(topology.incoming).blob("LATISS/a.fits").upload_from_string(b"pixels")
        client.bucket(topology.incoming).blob("LATISS/b.fits").upload_from_string(b"pixels")
    for subscription in (topology.arrivals, topology.hints):
        found = []
        while len(found) < 2:
            found += pull(topology.pubsub_host, subscription)
        assert {message.attributes["objectId"] for message in found} == {"LATISS/a.fits", "LATISS/b.fits"}
        assert len(found) == 2
        for message in found:
            assert message.attributes["eventType"] == "OBJECT_FINALIZE"
            assert message.attributes["bucketId"] == topology.incoming
            assert message.data == b""


def test_objects_outlive_a_kill_of_their_server_and_notifications_do_not(pubsub, own_topology):
    with GcsServer(pubsub.host) as server:
        topology = own_topology(gcs_url=server.url)
        with storage(server.url) as client:
            client.bucket(topology.incoming).blob("LATISS/a.fits").upload_from_string(b"pixels")
        assert pull(topology.pubsub_host, topology.arrivals)[0].attributes["objectId"] == "LATISS/a.fits"
        server.kill()
        assert not server.running
        server.start()
        with storage(server.url) as client:
            bucket = client.bucket(topology.incoming)
            assert bucket.blob("LATISS/a.fits").download_as_bytes() == b"pixels"
            assert list(bucket.list_notifications()) == []
            notify(server.url, topology.incoming, topology.image_arrived)
            bucket.blob("LATISS/b.fits").upload_from_string(b"pixels")
        assert pull(topology.pubsub_host, topology.arrivals)[0].attributes["objectId"] == "LATISS/b.fits"


def test_messages_do_not_outlive_a_kill_of_their_server(pubsub):
    topic = "projects/prompt-local/topics/next-visit"
    with PubSubEmulator() as server:
        with publisher(server.host) as client:
            client.create_topic(name=topic)
        publish(server.host, topic, (b"1", {}))
        host = server.host
        server.kill()
        server.start()
        assert server.host == host
        with pytest.raises(NotFound):
            publish(server.host, topic, (b"2", {}))


def test_a_cut_line_stops_messages_and_a_mended_one_loses_none(pubsub, topology):
    def send(data, timeout=LONG, **options):
        client.publish(
            topic=topology.next_visit, messages=[PubsubMessage(data=data)], timeout=timeout, **options
        )

    with Proxy(LOOPBACK, pubsub.port) as line, publisher(line.host) as client:
        send(b"before")
        assert line.n_connections == 1
        line.cut()
        assert line.n_connections == 0
        with pytest.raises(GoogleAPICallError):
            send(b"meanwhile", 1.0, retry=None)
        line.mend()
        send(b"after")
    found = []
    while len(found) < 2:
        found += pull(topology.pubsub_host, topology.activator)
    assert sorted(message.data for message in found) == [b"after", b"before"]


def test_committed_rows_outlive_a_kill_of_their_server(postgres):
    with Postgres() as server:
        engine = database.engine(server.new_database())
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE seen (n integer)"))
        for n in range(3):
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO seen VALUES (:n)"), {"n": n})
            server.kill()
            server.restart()
            engine.dispose()
        with engine.connect() as connection:
            assert list(connection.execute(text("SELECT n FROM seen ORDER BY n")).scalars()) == [0, 1, 2]
        engine.dispose()


FORLORN = """
import os, signal
from local_cloud.emulators import GcsServer, PubSubEmulator
from local_cloud.servers import Postgres
with PubSubEmulator() as pubsub, GcsServer(pubsub.host) as gcs, Postgres() as postgres:
    print(pubsub.pid, gcs.pid, postgres.pid, postgres.log_file, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_servers_die_with_the_process_that_started_them(postgres, gcs, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORLORN],
        cwd=ROOT / "tools",
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    *pids, log = done.stdout.split()
    assert len(pids) == 3
    for pid in map(int, pids):
        wait_until_dead(pid)
    shutil.rmtree(Path(log).parent)


def wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + LONG
    # One that nobody waits for stays a zombie.
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"{psutil.Process(pid)} still lives"
            time.sleep(0.02)


def test_servers_do_not_die_with_the_thread_that_started_them(pubsub, gcs):
    with GcsServer() as server:
        server.kill()
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        with storage(server.url) as client:
            assert list(client.list_buckets()) == []
        assert server.running


def test_servers_listen_on_this_machine_only(postgres, pubsub, gcs):
    for server in (postgres, pubsub, gcs):
        listening = [each for each in psutil.Process(server.pid).net_connections() if each.status == "LISTEN"]
        assert server.port in {each.laddr.port for each in listening}
        assert {each.laddr.ip.removeprefix("::ffff:") for each in listening} == {LOOPBACK}
