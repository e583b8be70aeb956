"""A Butler in memory on top of a real one."""

import numpy as np
import pytest
from lsst.daf.butler import Butler, CollectionType, DatasetRef

from prompt_processing.execution.memory import MemoryButler
from prompt_processing.instruments.butler import make_butler


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("butler")
    make_butler(str(root))
    butler = Butler.from_config(root, writeable=True)
    butler.collections.register("run", CollectionType.RUN)
    butler.put(np.ones((2, 2), np.float32), "bias", instrument="LATISS", detector=0, run="run")
    yield butler
    butler.close()


def new_ref(butler, name):
    data_id = butler.registry.expandDataId(instrument="LATISS", detector=0)
    return DatasetRef(butler.get_dataset_type(name), data_id, run="run")


def test_what_is_put_comes_back_as_it_is_and_the_source_is_not_changed(source):
    memory = MemoryButler(source)
    ref = new_ref(source, "ptc")
    content = {"gain": {"A": 1.0}}
    assert not memory.stored(ref)
    memory.put(content, ref)
    assert memory.get(ref) is content
    assert memory.getDeferred(ref).get() is content
    assert memory.stored(ref)
    assert memory.outputs == {ref: content}
    assert source.query_datasets("ptc", collections="run", explain=False) == []


def test_what_is_not_in_memory_comes_from_the_source(source):
    memory = MemoryButler(source)
    (ref,) = source.query_datasets("bias", collections="run")
    assert memory.stored(ref)
    np.testing.assert_array_equal(memory.get(ref), np.ones((2, 2)))
    assert memory.outputs == {}


def test_what_is_pruned_is_gone(source):
    memory = MemoryButler(source)
    ref = new_ref(source, "ptc")
    memory.put({}, ref)
    memory.pruneDatasets([ref])
    assert not memory.stored(ref)


def test_parts_of_what_is_in_memory_are_refused(source):
    memory = MemoryButler(source)
    ref = new_ref(source, "bias")
    memory.put(np.ones((2, 2)), ref)
    with pytest.raises(TypeError, match="whole datasets"):
        memory.get(ref, parameters={"bbox": 1})
