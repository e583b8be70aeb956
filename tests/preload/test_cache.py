"""Datasets in memory."""

import numpy as np
import pytest
from lsst.daf.butler import CollectionType

from prompt_processing.preload.cache import DatasetCache, size_of

MB = 250_000  # numbers of four bytes


@pytest.fixture
def refs(central):
    central.collections.register("cached", CollectionType.RUN)
    image = np.ones(MB, np.float32)
    return [
        central.put(
            image,
            "flat",
            instrument="LATISS",
            detector=0,
            physical_filter=f"SDSS{band}_65mm~empty",
            run="cached",
        )
        for band in "ugri"
    ]


@pytest.fixture
def reads(central, monkeypatch):
    found = []
    get = central.get
    monkeypatch.setattr(central, "get", lambda ref: found.append(ref) or get(ref))
    return found


def test_a_dataset_is_read_once_and_cannot_be_changed(central, refs, reads):
    cache = DatasetCache(central, 10_000_000)
    image = cache.get(refs[0])
    assert cache.get(refs[0]) is image
    assert reads == refs[:1]
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 2.0


def test_what_was_used_longest_ago_goes_first(central, refs, reads):
    cache = DatasetCache(central, 2_500_000)
    for index in (0, 1, 0, 2, 0, 1):
        cache.get(refs[index])
    assert reads == [refs[0], refs[1], refs[2], refs[1]]
    assert cache.size <= 2_500_000


def test_what_is_larger_than_the_limit_is_not_kept(central, refs, reads):
    cache = DatasetCache(central, 500_000)
    cache.get(refs[0])
    cache.get(refs[0])
    assert len(reads) == 2
    assert cache.size == 0


def test_two_caches_share_nothing(central, refs):
    one, two = DatasetCache(central, 10_000_000), DatasetCache(central, 10_000_000)
    assert one.get(refs[0]) is not two.get(refs[0])


def test_nested_datasets_count_with_their_arrays():
    assert size_of({"a": np.zeros(10), "b": {"c": np.zeros(5)}}) == 120
