"""Create-only objects and listings."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from prompt_processing.domain.errors import ConfigError, StoreError
from prompt_processing.storage import objects


@pytest.fixture(params=["folder", "gs"])
def store(request, tmp_path):
    """Root of an empty store."""
    if request.param == "folder":
        return objects.root(tmp_path / "store")
    bucket = request.getfixturevalue("new_bucket")
    return objects.root(f"gs://{bucket}/some/where")


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


def test_a_file_is_uploaded_once(store, tmp_path):
    file = tmp_path / "file.fits"
    file.write_bytes(bytes(range(256)) * 40_000)
    place = objects.child(store, "a/file.fits")
    assert objects.upload(place, file)
    first = objects.stat(place)
    assert first.size == 256 * 40_000
    file.write_bytes(b"another")
    assert not objects.upload(place, file)
    assert objects.stat(place) == first
    with pytest.raises(StoreError):
        objects.upload(objects.child(store, "b"), tmp_path / "nowhere")


def test_who_may_only_create_can_upload(new_bucket, tmp_path, monkeypatch):
    from google.api_core.exceptions import Forbidden
    from google.cloud.storage import Blob

    def refuse(*_, **__):
        raise Forbidden("storage.objects.get")

    monkeypatch.setattr(Blob, "exists", refuse)
    (tmp_path / "file").write_bytes(b"image")
    place = objects.child(objects.root(f"gs://{new_bucket}"), "a")
    assert objects.upload(place, tmp_path / "file")
    assert not objects.upload(place, tmp_path / "file")
    assert objects.read(place) == b"image"


def test_what_is_written_replaces_what_was_there(store):
    place = objects.child(store, "a/b")
    objects.write(place, b"first")
    first = objects.stat(place)
    objects.write(place, b"second")
    assert objects.read(place) == b"second"
    assert objects.stat(place).generation > first.generation


def test_the_beginning_of_an_object_can_be_read_alone(store):
    place = objects.child(store, "a/b")
    assert objects.read_start(place, 3) is None
    objects.create(place, b"abcdef")
    assert objects.read_start(place, 3) == b"abc"
    assert objects.read_start(place, 100) == b"abcdef"
    empty = objects.child(store, "empty")
    objects.create(empty, b"")
    assert objects.read_start(empty, 3) == b""
    assert objects.read(empty) == b""


def test_objects_can_be_had_as_files(store, tmp_path):
    objects.create(objects.child(store, "a/b.fits"), b"image")
    with objects.local_copies(store, ["a/b.fits", "a/b.json"], tmp_path) as folder:
        assert (folder / "a/b.fits").read_bytes() == b"image"
        assert not (folder / "a/b.json").exists()
    assert objects.read(objects.child(store, "a/b.fits")) == b"image"
    assert [path for path in tmp_path.iterdir() if path.name != "store"] == []


def test_a_listing_tells_sizes_and_versions(store):
    place = objects.child(store, "a/b")
    objects.create(place, b"abc")
    (found,) = objects.list_entries(store)
    assert (found.key, found.size) == ("a/b", 3)
    assert found.generation == objects.stat(place).generation


def test_an_absent_store_is_empty(store):
    assert list(objects.list_after(store)) == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a#b", "a?b", "a%20b"])
def test_strange_keys_are_refused(store, key):
    with pytest.raises(ValueError, match="not a key"):
        objects.child(store, key)


def test_a_bucket_that_is_not_there_is_a_store_error(new_bucket):
    store = objects.root(f"gs://{new_bucket}-is-not-there")
    with pytest.raises(StoreError, match="a: cannot be created"):
        objects.create(objects.child(store, "a"), b"")
    with pytest.raises(StoreError, match="cannot be listed"):
        list(objects.list_after(store))


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
