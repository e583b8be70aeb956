"""A Butler in memory."""

import numpy as np
import pandas as pd
import pytest
from lsst.daf.butler import DimensionUniverse, StorageClassFactory

from prompt_processing.execution.data_ids import DataIds
from prompt_processing.execution.memory import MemoryButler
from prompt_processing.instruments.dataset_types import butler_config, make_dataset_type

UNIVERSE = DimensionUniverse()


@pytest.fixture(autouse=True, scope="module")
def storage_classes():
    StorageClassFactory().addFromConfig(butler_config())


@pytest.fixture
def memory():
    return MemoryButler(UNIVERSE)


def new_ref(name):
    records = [
        UNIVERSE["instrument"].RecordClass(name="LATISS"),
        UNIVERSE["detector"].RecordClass(instrument="LATISS", id=0, full_name="R00_S00"),
        UNIVERSE["group"].RecordClass(instrument="LATISS", name="group"),
    ]
    dataset_type = make_dataset_type(UNIVERSE, name)
    return DataIds(UNIVERSE, records).ref(dataset_type, "run")


def test_what_is_put_comes_back_as_it_is(memory):
    ref, content = new_ref("ptc"), {"gain": {"A": 1.0}}
    assert not memory.stored(ref)
    memory.put(content, ref)
    assert memory.get(ref) is content
    assert memory.getDeferred(ref).get() is content
    assert memory.stored(ref)
    assert memory.outputs == {ref: content}


def test_what_is_held_is_no_output(memory):
    ref = new_ref("bias")
    memory.hold(np.ones((2, 2)), ref)
    np.testing.assert_array_equal(memory.get(ref), np.ones((2, 2)))
    assert memory.outputs == {}


def test_components_are_taken_out_of_what_is_held(memory):
    ref = new_ref("preloaded_dia_object")
    memory.hold(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), ref)
    assert list(memory.get(ref.makeComponentRef("columns"))) == ["a", "b"]
    assert list(memory.get(ref, parameters={"columns": ["b"]}).columns) == ["b"]


def test_another_storage_class_converts(memory):
    ref = new_ref("preloaded_dia_object")
    memory.hold(pd.DataFrame({"a": [1, 2]}), ref)
    table = memory.get(ref, storageClass="ArrowAstropy")
    assert list(table["a"]) == [1, 2]


def test_what_is_pruned_is_gone(memory):
    ref = new_ref("ptc")
    memory.put({}, ref)
    memory.pruneDatasets([ref])
    assert not memory.stored(ref)
    with pytest.raises(FileNotFoundError, match="ptc"):
        memory.get(ref)
