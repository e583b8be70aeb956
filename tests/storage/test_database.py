"""Engines and transactions."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from prompt_processing.domain.errors import ConfigError, StoreError
from prompt_processing.storage import database


@pytest.fixture
def engine(tmp_path):
    engine = database.engine(f"sqlite:///{tmp_path}/x.sqlite3")
    with database.writing(engine, "make") as connection:
        connection.execute(text("CREATE TABLE counter (value INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    return engine


def test_readers_and_a_writer_do_not_block_each_other(engine):
    with database.reading(engine, "mode") as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    with database.writing(engine, "write") as writer:
        writer.execute(text("UPDATE counter SET value = 5"))
        with database.reading(engine, "read") as reader:
            assert reader.execute(text("SELECT value FROM counter")).scalar() == 0


def test_no_update_is_lost_when_many_read_and_then_write(engine):
    barrier = threading.Barrier(8)

    def count(_):
        barrier.wait()
        for _ in range(10):
            with database.writing(engine, "count") as connection:
                value = connection.execute(text("SELECT value FROM counter")).scalar()
                connection.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    with database.reading(engine, "read") as connection:
        assert connection.execute(text("SELECT value FROM counter")).scalar() == 80


def test_an_error_undoes_the_transaction(engine):
    def fail():
        with database.writing(engine, "write") as connection:
            connection.execute(text("UPDATE counter SET value = 5"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.reading(engine, "read") as connection:
        assert connection.execute(text("SELECT value FROM counter")).scalar() == 0


def test_what_the_database_refuses_is_a_store_error(engine):
    with pytest.raises(StoreError, match="look: no such table"), database.reading(engine, "look") as reader:
        reader.execute(text("SELECT * FROM absent"))


@pytest.mark.parametrize("url", ["no url", "nosuchdatabase://x/y"])
def test_a_wrong_url_is_a_config_error(url):
    with pytest.raises(ConfigError, match="database URL"):
        database.engine(url)


class Connector:
    """What the Cloud SQL connector is called with; it connects to a server that is here."""

    def __init__(self, port):
        self.port = port
        self.asked = []

    def connect(self, instance, driver, **options):
        import pg8000.dbapi

        self.asked.append((instance, driver, options))
        return pg8000.dbapi.connect("postgres", host="127.0.0.1", port=self.port, database=options["db"])


def test_a_url_is_enough_for_cloud_sql(postgres_url, monkeypatch):
    from prompt_processing.storage import cloud_sql

    here = make_url(postgres_url)
    connector = Connector(here.port)
    monkeypatch.setattr(cloud_sql, "_connector", lambda: connector)
    url = f"postgresql+pg8000://worker%40p.iam@/{here.database}?plugin=cloud_sql&instance=p:r:i"
    engine = database.engine(url)
    with database.reading(engine, "ask") as connection:
        assert connection.execute(text("SELECT current_database()")).scalar() == here.database
    login = {"user": "worker@p.iam", "db": here.database, "ip_type": "private", "enable_iam_auth": True}
    assert connector.asked == [("p:r:i", "pg8000", login)]


def test_a_password_in_the_url_is_used_in_place_of_an_iam_account(postgres_url, monkeypatch):
    from prompt_processing.storage import cloud_sql

    here = make_url(postgres_url)
    connector = Connector(here.port)
    monkeypatch.setattr(cloud_sql, "_connector", lambda: connector)
    url = f"postgresql+pg8000://me:s3cret@/{here.database}?plugin=cloud_sql&instance=p:r:i&ip=public"
    with database.reading(database.engine(url), "ask") as connection:
        connection.execute(text("SELECT 1"))
    ((_, _, options),) = connector.asked
    assert options == {"user": "me", "db": here.database, "ip_type": "public", "password": "s3cret"}


@pytest.mark.parametrize("query", ["", "&instance=p", "&instance=p:r:i&ip=elsewhere"])
def test_a_wrong_url_of_cloud_sql_is_a_config_error(query):
    with pytest.raises(ConfigError, match="database URL"):
        database.engine(f"postgresql+pg8000://me@/db?plugin=cloud_sql{query}")


def connections(url):
    """Return how many connections there are besides the one that asks."""
    observer = create_engine(url, poolclass=NullPool)
    with observer.connect() as connection:
        query = "SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()"
        return connection.execute(text(query)).scalar()


def test_a_connection_is_used_again_and_closed_when_nobody_needs_it(postgres_url, monkeypatch):
    monkeypatch.setattr(database, "IDLE", 5.0)
    engine = database.engine(postgres_url)
    backends = set()
    for _ in range(5):
        with database.writing(engine, "ask") as connection:
            backends.add(connection.execute(text("SELECT pg_backend_pid()")).scalar())
    assert len(backends) == 1
    assert connections(postgres_url) == 1
    deadline = time.monotonic() + 30.0
    while connections(postgres_url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert connections(postgres_url) == 0
    with database.reading(engine, "ask") as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_a_connection_in_use_is_not_closed(postgres_url, monkeypatch):
    monkeypatch.setattr(database, "IDLE", 0.05)
    engine = database.engine(postgres_url)
    with database.writing(engine, "hold") as held:
        with database.reading(engine, "ask") as connection:
            connection.execute(text("SELECT 1"))
        deadline = time.monotonic() + 30.0
        while connections(postgres_url) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert held.execute(text("SELECT 1")).scalar() == 1
    assert connections(postgres_url) <= 1
