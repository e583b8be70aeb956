"""Products in the central Butler."""

from pathlib import Path

import pytest
from lsst.daf.butler import Butler, CollectionType, DatasetType

from prompt_processing.delivery.memory import MemoryProducts
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain.errors import ConflictError, StoreError

RUN = "LATISS/prompt/20260315"


def make_butler(root, *, width=100):
    Butler.makeRepo(str(root))
    butler = Butler.from_config(str(root), writeable=True)
    registry = butler.registry
    registry.insertDimensionData(
        "instrument", {"name": "LATISS", "visit_system": 0, "visit_max": width, "class_name": "x.Y"}
    )
    return butler


def put(butler, values, name="summary"):
    """Put one dataset for each detector, with a detector record that comes along."""
    butler.collections.register(RUN)
    dataset_type = DatasetType(
        name, ("instrument", "detector"), "StructuredDataDict", universe=butler.dimensions
    )
    butler.registry.registerDatasetType(dataset_type)
    refs = []
    for detector, value in values.items():
        butler.registry.insertDimensionData(
            "detector",
            {"instrument": "LATISS", "id": detector, "full_name": f"R00_S{detector:02d}"},
            skip_existing=True,
        )
        data_id = {"instrument": "LATISS", "detector": detector}
        refs.append(butler.put({"value": value}, dataset_type, data_id, run=RUN))
    return refs


@pytest.fixture
def source(tmp_path):
    return make_butler(tmp_path / "local")


@pytest.fixture
def central(tmp_path):
    return make_butler(tmp_path / "central")


@pytest.fixture(params=["memory", "butler"])
def products(request, central):
    return MemoryProducts() if request.param == "memory" else ButlerProducts(central)


def files(root: Path):
    return sorted(path.name for path in root.rglob("*.yaml") if path.name != "butler.yaml")


def test_products_can_be_sent_again(products, source):
    refs = put(source, {0: 1.5, 1: 2.5})
    assert products.transfer(source, refs[:1]) == 1
    assert products.transfer(source, refs) == 1
    assert products.transfer(source, refs) == 0
    assert products.transfer(source, []) == 0


def test_what_another_attempt_made_stays(products, source, tmp_path):
    products.transfer(source, put(source, {0: 1.5}))
    other = make_butler(tmp_path / "other")
    assert products.transfer(other, put(other, {0: 1.5, 1: 2.5})) == 1


def test_what_another_worker_has_made_in_the_meantime_stays(central, source, tmp_path):
    with Butler.from_config(central._config.configDir.ospath, writeable=True) as another:
        first, second = ButlerProducts(central), ButlerProducts(another)
        other = make_butler(tmp_path / "other")
        refs = put(source, {0: 1.5})
        # The first one has looked at the run before it held anything of the second type.
        assert first.transfer(source, refs) == 1
        assert first.transfer(source, refs) == 0
        assert second.transfer(other, put(other, {0: 1.5}, "catalogue")) == 1
        assert first.transfer(source, put(source, {0: 1.5, 1: 2.5}, "catalogue")) == 1


def test_a_missing_file_is_a_store_error(products, source):
    refs = put(source, {0: 1.5})
    Path(source.getURI(refs[0]).ospath).unlink()
    with pytest.raises(StoreError):
        products.transfer(source, refs)


def test_products_can_be_read_and_found(central, source):
    refs = put(source, {0: 1.5, 1: 2.5})
    ButlerProducts(central, "LATISS/prompt").transfer(source, refs)
    fresh = Butler.from_config(central._config.configDir.ospath)
    found = fresh.get("summary", instrument="LATISS", detector=1, collections="LATISS/prompt")
    assert found == {"value": 2.5}
    assert fresh.collections.get_info("LATISS/prompt").type is CollectionType.CHAINED


def test_a_broken_transfer_leaves_nothing(central, source, tmp_path):
    refs = put(source, {0: 1.5, 1: 2.5, 2: 3.5})
    broken = Path(source.getURI(refs[1]).ospath)
    broken.unlink()
    broken.mkdir()
    before = files(tmp_path / "central")
    with pytest.raises(StoreError):
        ButlerProducts(central).transfer(source, refs)
    assert files(tmp_path / "central") == before
    assert central.collections.query("*") == []
    assert list(central.registry.queryDimensionRecords("detector", instrument="LATISS")) == []
    # When the file is back, everything arrives.
    broken.rmdir()
    broken.write_text("value: 2.5\n")
    assert ButlerProducts(central).transfer(source, refs) == 3


def test_a_contradiction_is_a_conflict(source, tmp_path):
    refs = put(source, {0: 1.5})
    central = make_butler(tmp_path / "central")
    other = DatasetType("summary", ("instrument",), "StructuredDataDict", universe=central.dimensions)
    central.registry.registerDatasetType(other)
    with pytest.raises(ConflictError, match="central Butler"):
        ButlerProducts(central).transfer(source, refs)
