import numpy as np
import pytest
from astropy.table import Table
from lsst.daf.butler import Butler, CollectionType, DatasetType, Timespan
from pandas import DataFrame
from pandas.testing import assert_frame_equal

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.psf import PsfModel
from prompt_processing.instruments.dataset_types import DATASET_TYPES, register_dataset_types
from prompt_processing.instruments.formatters import ExposureDelegate
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from prompt_processing.instruments.latiss import Latiss
from prompt_processing.instruments.pointing import predicted_wcs
from prompt_processing.instruments.skymap import SKYMAP, Patch, register_patches, register_skymap
from support import latiss_files as files

DETECTOR = {"instrument": "LATISS", "detector": 0}


@pytest.fixture
def butler(butler, tmp_path):
    """A repository with one raw and its visit, and a run to put things into."""
    _, observation = ingest_raw(butler, files.write(tmp_path / "a.fits"), run="raw")
    define_visit(butler, observation, (80, 168))
    butler.collections.register("out", CollectionType.RUN)
    return butler


def exposure():
    shape = (80, 168)
    rng = np.random.default_rng(2)
    image, variance = rng.normal(size=(2, *shape)).astype(np.float32)
    masked = MaskedImage(image, variance, rng.integers(0, 2**11, shape).astype(np.uint16))
    psf = PsfModel(rng.normal(size=(3, 5, 5)), 1, shape)
    return Exposure(masked, "nJy", predicted_wcs(10.0, 20.0, 30.0, shape, 0.1), psf, {"visit": 1})


def put(butler, obj, name, **data_id):
    """Write a dataset, and read it in a new Butler, as another process would."""
    ref = butler.put(obj, name, data_id, run="out")
    with Butler.from_config(butler._config, writeable=False) as other:
        return other.get(ref), ref


@pytest.mark.parametrize(
    ("name", "data_id"),
    [
        ("post_isr_image", {**DETECTOR, "exposure": 2024062400106}),
        ("preliminary_visit_image", {**DETECTOR, "visit": 2024062400106}),
    ],
)
def test_exposures_and_their_components_come_back(butler, name, data_id):
    written = exposure()
    back, ref = put(butler, written, name, **data_id)
    np.testing.assert_array_equal(back.masked_image.image, written.masked_image.image)
    np.testing.assert_array_equal(back.masked_image.mask, written.masked_image.mask)
    assert butler.get(ref.makeComponentRef("info")) == {"visit": 1}
    assert butler.get(ref.makeComponentRef("shape")) == (80, 168)
    assert butler.get(ref.makeComponentRef("unit")) == "nJy"
    np.testing.assert_array_equal(butler.get(ref.makeComponentRef("variance")), written.masked_image.variance)
    np.testing.assert_array_equal(butler.get(ref.makeComponentRef("wcs")).wcs.cd, written.wcs.wcs.cd)
    assert butler.get(ref.makeComponentRef("psf")).order == 1
    assert butler.get(name, data_id, collections="out").unit == "nJy"


def test_a_template_patch_is_found_by_its_tract_and_patch(butler):
    register_skymap(butler)
    register_patches(butler, [Patch(5, 7)])
    data_id = {"skymap": SKYMAP.name, "tract": 5, "patch": 7, "band": "r"}
    back, _ = put(butler, exposure(), "template_coadd", **data_id)
    assert back.masked_image.shape == (80, 168)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, np.bool_])
def test_calib_images_keep_type_and_values(butler, dtype):
    array = (np.random.default_rng(1).normal(size=(7, 9)) * 3).astype(dtype)
    name = "defects" if dtype is np.bool_ else "bias"
    back, _ = put(butler, array, name, **DETECTOR)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_a_certified_calib_is_found_for_an_exposure(butler):
    data_id = {**DETECTOR, "physical_filter": "SDSSr_65mm~empty"}
    ref = butler.put(np.ones((3, 4), np.float32), "flat", data_id, run="out")
    butler.collections.register("calib", CollectionType.CALIBRATION)
    butler.registry.certify("calib", [ref], Timespan(None, None))
    found = butler.get("flat", **DETECTOR, exposure=2024062400106, collections="calib")
    assert found.sum() == 12


def test_dictionaries_of_arrays_come_back(butler):
    written = {
        "a": np.arange(6.0).reshape(2, 3), "b": np.array([], dtype=np.int16),
        "c": 1 / 3, "d": 7, "e": "text", "f": True,
    }  # fmt: skip
    back, _ = put(butler, written, "difference_kernel", **DETECTOR, visit=2024062400106)
    assert list(back) == list(written)
    for name in ("a", "b"):
        assert back[name].dtype == written[name].dtype
        np.testing.assert_array_equal(back[name], written[name])
    assert {k: back[k] for k in "cdef"} == {k: written[k] for k in "cdef"}
    assert type(back["d"]) is int


def test_dictionaries_never_hold_pickled_objects(butler):
    data_id = {**DETECTOR, "visit": 2024062400106}
    with pytest.raises(RuntimeError, match="difference_kernel") as caught:
        butler.put({"a": {"b": 1}}, "difference_kernel", data_id, run="out")
    assert "pickle" in str(caught.value.__cause__)
    assert not butler.query_datasets("difference_kernel", collections="out", explain=False)


def test_json_comes_back(butler):
    written = {"gain": {"Segment00": 1 / 3}, "nothing": None, "list": [1, 2.5], "text": "grüße"}
    back, _ = put(butler, written, "ptc", **DETECTOR)
    assert back == written


def test_tables_keep_doubles(butler):
    table = Table({"id": np.array([2**62 + 1, 2]), "ra": [1 / 3, np.nan], "flux": np.float32([1.5, np.inf])})
    back, _ = put(butler, table, "dia_source_unfiltered", **DETECTOR, visit=2024062400106)
    assert back.colnames == table.colnames
    for name in table.colnames:
        np.testing.assert_array_equal(back[name], table[name])
    frame = DataFrame({"diaObjectId": [2**62 + 1], "ra": [2 / 3]})
    assert_frame_equal(put(butler, frame, "dia_object_apdb", **DETECTOR, visit=2024062400106)[0], frame)


def test_the_refcat_is_found_by_its_part_of_the_sky(butler):
    back, _ = put(butler, Table({"ra": [1.0]}), "refcat", htm7=200000)
    assert back["ra"][0] == 1.0
    assert len(butler.query_datasets("refcat", collections="out")) == 1


def test_registering_again_changes_nothing_and_other_definitions_are_refused(butler):
    register_dataset_types(butler)
    assert {t.name for t in butler.registry.queryDatasetTypes()} >= set(DATASET_TYPES)
    Latiss().register(butler.registry)
    butler.registry.removeDatasetType("bias")
    butler.registry.registerDatasetType(
        DatasetType("bias", ["instrument"], "JsonDict", universe=butler.dimensions)
    )
    with pytest.raises(RepositoryError, match="bias"):
        register_dataset_types(butler, "bias")


def test_components_of_an_exposure_in_memory(butler):
    delegate = ExposureDelegate(butler.get_dataset_type("difference_image").storageClass)
    assert delegate.getComponent(exposure(), "shape") == (80, 168)
