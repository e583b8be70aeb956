"""Create-only objects and listings."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from prompt_processing.domain.errors import ConfigError, StoreError
from prompt_processing.storage import object_store


@pytest.fixture(params=["folder", "gs"])
def store(request, tmp_path):
    """Root of an empty store."""
    if request.param == "folder":
        return object_store.root(tmp_path / "store")
    bucket = request.getfixturevalue("new_bucket")
    return object_store.root(f"gs://{bucket}/some/where")


def test_the_first_one_stands(store):
    place = object_store.child(store, "a/b/c.json")
    assert object_store.read(place) is None
    assert object_store.create(place, b"first")
    assert not object_store.create(place, b"second")
    assert object_store.read(place) == b"first"


def test_of_many_writers_one_succeeds(store):
    place = object_store.child(store, "a/one")
    with ThreadPoolExecutor(16) as pool:
        results = list(
            pool.map(lambda number: object_store.create(place, str(number).encode() * 1000), range(64))
        )
    assert results.count(True) == 1
    assert object_store.read(place) == str(results.index(True)).encode() * 1000
    assert list(object_store.list_after(store)) == ["a/one"]


def test_listing_is_in_the_order_of_keys(store):
    keys = ["b", "a/z", "a-b", "a/b/c", "a/bb", "é/x", "A", "a.txt"]
    for key in keys:
        object_store.create(object_store.child(store, key), b"")
    assert list(object_store.list_after(store)) == sorted(keys)
    for start in [*keys, "a", "a/", "a/c", "zzz"]:
        assert list(object_store.list_after(store, start)) == [key for key in sorted(keys) if key > start]


def test_a_file_is_uploaded_once(store, tmp_path):
    file = tmp_path / "file.fits"
    file.write_bytes(bytes(range(256)) * 40_000)
    place = object_store.child(store, "a/file.fits")
    assert object_store.upload(place, file)
    first = object_store.stat(place)
    assert first.size == 256 * 40_000
    file.write_bytes(b"another")
    assert not object_store.upload(place, file)
    assert object_store.stat(place) == first
    with pytest.raises(StoreError):
        object_store.upload(object_store.child(store, "b"), tmp_path / "nowhere")


def test_who_may_only_create_can_upload(new_bucket, tmp_path, monkeypatch):
    from google.api_core.exceptions import Forbidden
    from google.cloud.storage import Blob

    def refuse(*_, **__):
        raise Forbidden("storage.objects.get")

    monkeypatch.setattr(Blob, "exists", refuse)
    (tmp_path / "file").write_bytes(b"image")
    place = object_store.child(object_store.root(f"gs://{new_bucket}"), "a")
    assert object_store.upload(place, tmp_path / "file")
    assert not object_store.upload(place, tmp_path / "file")
    assert object_store.read(place) == b"image"


def test_what_is_written_replaces_what_was_there(store):
    place = object_store.child(store, "a/b")
    object_store.write(place, b"first")
    first = object_store.stat(place)
    object_store.write(place, b"second")
    assert object_store.read(place) == b"second"
    assert object_store.stat(place).generation > first.generation


def test_the_beginning_of_an_object_can_be_read_alone(store):
    place = object_store.child(store, "a/b")
    assert object_store.read_start(place, 3) is None
    object_store.create(place, b"abcdef")
    assert object_store.read_start(place, 3) == b"abc"
    assert object_store.read_start(place, 100) == b"abcdef"
    empty = object_store.child(store, "empty")
    object_store.create(empty, b"")
    assert object_store.read_start(empty, 3) == b""
    assert object_store.read(empty) == b""


def test_objects_can_be_had_as_files(store, tmp_path):
    object_store.create(object_store.child(store, "a/b.fits"), b"image")
    with object_store.local_copies(store, ["a/b.fits", "a/b.json"], tmp_path) as folder:
        assert (folder / "a/b.fits").read_bytes() == b"image"
        assert not (folder / "a/b.json").exists()
    assert object_store.read(object_store.child(store, "a/b.fits")) == b"image"
    assert [path for path in tmp_path.iterdir() if path.name != "store"] == []


def test_a_listing_tells_sizes_and_versions(store):
    place = object_store.child(store, "a/b")
    object_store.create(place, b"abc")
    (found,) = object_store.list_entries(store)
    assert (found.key, found.size) == ("a/b", 3)
    assert found.generation == object_store.stat(place).generation


def test_an_absent_store_is_empty(store):
    assert list(object_store.list_after(store)) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a#b", "a?b", "a%20b"])
def test_strange_keys_are_refused(store, key):
    with pytest.raises(ValueError, match="not a key"):
        object_store.child(store, key)


def test_a_bucket_that_is_not_there_is_a_store_error(new_bucket):
    store = object_store.root(f"gs://{new_bucket}-is-not-there")
    with pytest.raises(StoreError, match="a: cannot be created"):
        object_store.create(object_store.child(store, "a"), b"")
    with pytest.raises(StoreError, match="cannot be listed"):
        list(object_store.list_after(store))


def test_a_store_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        object_store.create(object_store.child(object_store.root(tmp_path), "file/below"), b"")


@pytest.mark.parametrize("uri", ["s3://bucket/x", "https://host/x"])
def test_other_stores_are_refused_clearly(uri):
    place = object_store.child(object_store.root(uri), "key")
    with pytest.raises(ConfigError, match="not supported"):
        object_store.create(place, b"")
    with pytest.raises(ConfigError, match="not supported"):
        list(object_store.list_after(object_store.root(uri)))
