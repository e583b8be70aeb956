"""Create-only objects and listings."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from prompt_processing import objects
from prompt_processing.domain.errors import ConfigError, StoreError


@pytest.fixture
def store(tmp_path):
    return objects.root(tmp_path / "store")


def test_the_first_one_stands(store):
    place = objects.child(store, "a/b/c.json")
    assert objects.read(place) is None
    assert objects.create(place, b"first")
    assert not objects.create(place, b"second")
    assert objects.read(place) == b"first"


def test_of_many_writers_one_succeeds(store):
    place = objects.child(store, "a/one")
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda number: objects.create(place, str(number).encode() * 1000), range(64)))
    assert results.count(True) == 1
    assert objects.read(place) == str(results.index(True)).encode() * 1000
    assert list(objects.list_after(store)) == ["a/one"]


def test_listing_is_in_the_order_of_keys(store):
    keys = ["b", "a/z", "a-b", "a/b/c", "a/bb", "é/x", "A", "a.txt"]
    for key in keys:
        objects.create(objects.child(store, key), b"")
    assert list(objects.list_after(store)) == sorted(keys)
    for start in [*keys, "a", "a/", "a/c", "zzz"]:
        assert list(objects.list_after(store, start)) == [key for key in sorted(keys) if key > start]


def test_an_absent_store_is_empty(store):
    assert list(objects.list_after(store)) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a#b", "a?b", "a%20b"])
def test_strange_keys_are_refused(store, key):
    with pytest.raises(ValueError, match="not a key"):
        objects.child(store, key)


def test_a_store_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        objects.create(objects.child(objects.root(tmp_path), "file/below"), b"")


@pytest.mark.parametrize("uri", ["s3://bucket/x", "https://host/x"])
def test_other_stores_are_refused_clearly(uri):
    place = objects.child(objects.root(uri), "key")
    with pytest.raises(ConfigError, match="not supported"):
        objects.create(place, b"")
    with pytest.raises(ConfigError, match="not supported"):
        list(objects.list_after(objects.root(uri)))
