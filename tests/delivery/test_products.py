"""Products in the central Butler."""

import os
import time
from pathlib import Path

import pytest
from lsst.daf.butler import Butler, CollectionType, DatasetType

from prompt_processing.delivery.memory import MemoryProducts
from prompt_processing.delivery.port import Products
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain.errors import ConflictError, StoreError
from prompt_processing.execution.data_ids import DataIds

RUN = "LATISS/prompt/20260315"


def make_butler(root):
    Butler.makeRepo(str(root))
    butler = Butler.from_config(str(root), writeable=True)
    butler.registry.insertDimensionData(
        "instrument", {"name": "LATISS", "visit_system": 0, "visit_max": 100, "class_name": "x.Y"}
    )
    return butler


def made(universe, values, name="summary", dimensions=("instrument", "detector"), init=()):
    """Return products: one dataset for each detector, with the detector's record."""
    dataset_type = DatasetType(name, dimensions, "StructuredDataDict", universe=universe)
    instrument = universe["instrument"].RecordClass(name="LATISS")
    datasets, records = {}, []
    for detector, value in values.items():
        record = universe["detector"].RecordClass(
            instrument="LATISS", id=detector, full_name=f"R00_S{detector:02d}"
        )
        records.append(record)
        datasets[DataIds(universe, [instrument, record]).ref(dataset_type, RUN)] = {"value": value}
    config = DatasetType("task_config", (), "StructuredDataDict", universe=universe)
    init_outputs = {DataIds(universe, []).ref(config, RUN): {"value": value} for value in init}
    return Products(datasets, init_outputs, [], records)


@pytest.fixture
def central(tmp_path):
    return make_butler(tmp_path / "central")


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture(params=["memory", "butler"])
def sink(request, central, work):
    return MemoryProducts() if request.param == "memory" else ButlerProducts(central, work)


def files(root: Path):
    return sorted(path.name for path in root.rglob("*.yaml") if path.name != "butler.yaml")


def test_products_can_be_sent_again(sink, central):
    products = made(central.dimensions, {0: 1.5, 1: 2.5})
    assert sink.store(products) == 2
    assert sink.store(products) == 0
    assert sink.store(Products({}, {}, [], [])) == 0


def test_what_another_attempt_made_stays(central, work):
    ButlerProducts(central, work).store(made(central.dimensions, {0: 1.5}))
    assert ButlerProducts(central, work).store(made(central.dimensions, {0: 99.0})) == 0
    assert central.get("summary", instrument="LATISS", detector=0, collections=RUN) == {"value": 1.5}


def test_what_another_worker_has_made_in_the_meantime_stays(central, work):
    universe = central.dimensions
    with Butler.from_config(central._config.configDir.ospath, writeable=True) as another:
        first, second = ButlerProducts(central, work), ButlerProducts(another, work)
        # The first one has looked at the run before it held anything of the second type.
        assert first.store(made(universe, {0: 1.5})) == 1
        assert second.store(made(universe, {0: 1.5}, "catalogue")) == 1
        assert first.store(made(universe, {0: 1.5}, "catalogue")) == 0
        assert first.store(made(universe, {1: 2.5}, "catalogue")) == 1


def test_configurations_are_stored_once_for_a_run(central, work):
    sink = ButlerProducts(central, work)
    assert sink.store(made(central.dimensions, {0: 1.5}, init=[1])) == 2
    assert sink.store(made(central.dimensions, {1: 1.5}, init=[1])) == 1
    assert central.get("task_config", collections=RUN) == {"value": 1}


def test_products_can_be_read_by_others_and_leave_no_scratch(central, work):
    ButlerProducts(central, work).store(made(central.dimensions, {0: 1.5, 1: 2.5}))
    fresh = Butler.from_config(central._config.configDir.ospath)
    assert fresh.get("summary", instrument="LATISS", detector=1, collections=RUN) == {"value": 2.5}
    assert fresh.collections.get_info(RUN).type is CollectionType.RUN
    assert list(work.iterdir()) == []


def test_a_transfer_that_breaks_leaves_nothing_and_can_be_repeated(central, work, tmp_path, monkeypatch):
    products = made(central.dimensions, {0: 1.5, 1: 2.5, 2: 3.5})
    before = files(tmp_path / "central")

    def fill_the_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(central._datastore), "transfer_from", fill_the_disk)
        with pytest.raises(StoreError, match="No space left"):
            ButlerProducts(central, work).store(products)
    assert files(tmp_path / "central") == before
    assert list(work.iterdir()) == []
    assert central.query_datasets("summary", collections=RUN, explain=False) == []
    assert ButlerProducts(central, work).store(products) == 3


def test_files_that_cannot_be_written_are_a_store_error_that_names_them(central, work, monkeypatch):
    def fill_the_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lsst.daf.butler.QuantumBackedButler.put", fill_the_disk)
    with pytest.raises(StoreError, match=r"summary cannot be written.*No space left"):
        ButlerProducts(central, work).store(made(central.dimensions, {0: 1.5}))
    assert list(work.iterdir()) == []


def test_scratch_of_a_worker_that_was_killed_is_removed_after_a_day(central, work):
    old, new = work / "products-old", work / "products-new"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (time.time() - 90_000,) * 2)
    ButlerProducts(central, work)
    assert list(work.iterdir()) == [new]


def test_a_contradiction_is_a_conflict(central, work):
    other = DatasetType("summary", ("instrument",), "StructuredDataDict", universe=central.dimensions)
    central.registry.registerDatasetType(other)
    with pytest.raises(ConflictError, match="central Butler"):
        ButlerProducts(central, work).store(made(central.dimensions, {0: 1.5}))
