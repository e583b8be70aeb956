"""Engines and transactions."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from prompt_processing import database
from prompt_processing.domain.errors import ConfigError, StoreError


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


def test_a_connection_can_be_made_by_the_caller(tmp_path):
    import sqlite3

    path = tmp_path / "made.sqlite3"
    engine = database.engine("sqlite://", creator=lambda: sqlite3.connect(path))
    with database.writing(engine, "make") as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    assert path.exists()
