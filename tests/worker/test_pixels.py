"""From a raw to products in the central Butler, with a pipeline that does next to nothing."""

import pytest
from astropy.io import fits
from lsst.daf.butler import Butler

from prompt_processing.apdb.memory import MemoryApdb
from prompt_processing.config import WorkerSettings
from prompt_processing.delivery.products import ButlerProducts
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.errors import MissingInputError, PlanMismatchError
from prompt_processing.domain.ids import visit_id_from_group
from prompt_processing.domain.outcome import Stopwatch
from prompt_processing.instruments.ingest import define_visit, ingest_raw
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.preload.preloader import Preloader
from prompt_processing.selection.override import Override, Overrides
from prompt_processing.selection.rules import Canary, Rule
from prompt_processing.selection.selection import Selection
from prompt_processing.storage import object_store
from prompt_processing.worker.pixels import ButlerPixels
from support.central import SHAPE, message
from support.material import central, folder, material, new_preloader  # noqa: F401 (fixtures)

RAWS = "LATISS/raw/all"


@pytest.fixture
def keys(material):  # noqa: F811 (a fixture)
    return material[1]


@pytest.fixture
def pixels(new_preloader, folder):  # noqa: F811 (fixtures)
    return ButlerPixels(new_preloader(), object_store.root(folder / "incoming"), folder, WorkerSettings())


@pytest.fixture
def sink(central, tmp_path):  # noqa: F811 (a fixture)
    (tmp_path / "work").mkdir()
    return ButlerProducts(central, tmp_path / "work")


def products_of(pixels, index, *keys, **changes):
    """Process a visit, and return its products."""
    with pixels.prepare(message(index, **changes), Stopwatch()) as prepared:
        prepared.process(keys, Stopwatch())
        return prepared.products(prepared.decide(1, (), WallClock().now()))


def run_of(products):
    return next(iter(products.datasets)).run


def dimension_rows(butler):
    """Return all records of exposures and visits."""
    elements = (
        "exposure", "group", "day_obs", "visit", "visit_definition", "visit_system_membership",
        "visit_detector_region",
    )  # fmt: skip
    return {
        name: sorted(str(record.toDict()) for record in butler.query_dimension_records(name, explain=False))
        for name in elements
    }


def test_what_is_made_in_memory_can_be_read_from_the_central_butler(pixels, sink, central, keys):  # noqa: F811
    products = products_of(pixels, 0, keys[0])
    sink.store(products)
    with Butler.from_config(central._config.configDir.ospath) as fresh:
        data_id = {
            "instrument": "LATISS", "detector": 0, "skymap": SKYMAP.name,
            "visit": products.raws[0].ref.dataId["exposure"],
        }  # fmt: skip
        run = run_of(products)
        assert fresh.get("trivial_metrics", data_id, collections=run) == {"patches": 4}
        assert fresh.get("trivial_difference_image", data_id, collections=run).masked_image.shape == (64, 64)
        assert fresh.get("subtract_metadata", data_id, collections=run)["quantum"]["caveats"] == 0
        assert fresh.exists("subtract_log", data_id, collections=run)
        assert fresh.get("subtract_config", collections=run)
        assert "numpy" in fresh.get("packages", collections=run)
        assert fresh.get(products.raws[0].ref).shape == SHAPE


def test_products_tell_what_they_were_made_from(pixels, sink, central, keys):  # noqa: F811
    products = products_of(pixels, 0, keys[0])
    sink.store(products)
    visit = products.raws[0].ref.dataId["exposure"]
    origin = central.get(
        "prompt_provenance", instrument="LATISS", detector=0, visit=visit, collections=run_of(products)
    )
    assert (origin["pipeline"], origin["group"], origin["raws"]) == ("Trivial", "group-0", [keys[0]])
    assert origin["version"] == run_of(products).rpartition("/")[2]
    assert origin["inputs"]["raw"] == [str(products.raws[0].ref.id)]
    templates = central.query_datasets("template_coadd", collections="LATISS/templates")
    assert origin["inputs"]["template_coadd"] == sorted(str(ref.id) for ref in templates)


def test_visits_and_ids_are_those_that_ingestion_gives(pixels, sink, central, keys, folder):  # noqa: F811
    sink.store(products_of(pixels, 0, keys[0]))
    (ours,) = central.query_datasets("raw", collections=RAWS)
    before = dimension_rows(central)
    ref, observation = ingest_raw(central, folder / "incoming" / keys[0], run=RAWS)
    define_visit(central, observation, SHAPE)
    assert ref.id == ours.id
    assert dimension_rows(central) == before


def test_the_same_visit_gives_the_same_ids_in_every_attempt_and_is_stored_once(pixels, sink, keys):
    first, second = (products_of(pixels, 0, keys[0]) for _ in range(2))
    assert [ref.id for ref in first.datasets] == [ref.id for ref in second.datasets]
    assert sink.store(first) > 0
    assert sink.store(second) == 0


def test_one_engine_takes_visits_in_any_order(pixels, sink, central, keys):  # noqa: F811
    for number in (2, 0, 3, 1, 0):
        sink.store(products_of(pixels, number, keys[number]))
    assert (
        len(central.query_datasets("trivial_summary", collections="LATISS/prompt/*", find_first=False)) == 4
    )


def test_a_second_engine_makes_the_same_of_it(pixels, new_preloader, folder, sink, keys):  # noqa: F811
    another = ButlerPixels(new_preloader(), object_store.root(folder / "incoming"), folder, WorkerSettings())
    assert sink.store(products_of(pixels, 0, keys[0])) > 0
    assert sink.store(products_of(another, 0, keys[0])) == 0
    assert sink.store(products_of(another, 1, keys[1])) > 0


def test_two_snaps_are_two_visits_and_one_of_the_group(pixels, sink, central, keys, folder):  # noqa: F811
    for key in keys[2:4]:
        with fits.open(folder / "incoming" / key, mode="update") as hdus:
            hdus[0].header["GROUPID"] = "2024-06-25T01:26:31.895"
    products = products_of(pixels, 0, *keys[2:4], groupId="2024-06-25T01:26:31.895")
    sink.store(products)
    sink.store(products)
    exposures = [raw.ref.dataId["exposure"] for raw in products.raws]
    group = visit_id_from_group("2024-06-25T01:26:31.895")
    systems = {
        (record.visit_system, record.visit)
        for record in central.query_dimension_records("visit_system_membership", explain=False)
        if record.visit in {*exposures, group}
    }
    assert systems == {(0, exposures[0]), (0, exposures[1]), (1, group)}
    members = {
        record.exposure
        for record in central.query_dimension_records("visit_definition", explain=False)
        if record.visit == group
    }
    assert members == set(exposures)


def test_the_raw_decides_on_the_filter_that_the_event_left_open(pixels, keys):
    products = products_of(pixels, 0, keys[0], filters="")
    metrics = next(obj for ref, obj in products.datasets.items() if ref.datasetType.name == "trivial_metrics")
    assert metrics == {"patches": 4}
    # In another filter there is no flat.
    with fits.open(pixels._incoming.join(keys[1]).ospath, mode="update") as hdus:
        hdus[0].header["FILTER"] = "SDSSg_65mm"
    with pytest.raises(MissingInputError, match="isr has no flat"):
        products_of(pixels, 1, keys[1], filters="")
    with pytest.raises(PlanMismatchError, match="filter"):
        products_of(pixels, 1, keys[1])


@pytest.fixture
def overrides(folder):  # noqa: F811 (a fixture)
    return Overrides(object_store.root(folder / "overrides"))


def say(overrides, *pipelines, action="set"):
    """Let an operator decide."""
    overrides.add(
        lambda when: Override(action=action, pipelines=pipelines, reason="test", who="me", when=when)
    )


def test_what_an_operator_says_acts_on_the_next_visit(pixels, overrides, keys):
    assert "/Trivial/" in run_of(products_of(pixels, 0, keys[0]))
    say(overrides, "Isr.yaml")
    assert "/Isr/" in run_of(products_of(pixels, 1, keys[1]))
    say(overrides)
    skipped = pixels.prepare(message(2), Stopwatch())
    assert (skipped.status, skipped.reason, skipped.detail) == ("skipped", "no-pipeline", "override")
    say(overrides, action="clear")
    assert "/Trivial/" in run_of(products_of(pixels, 2, keys[2]))


def test_a_decision_made_under_an_override_is_finished_with_its_pipeline(pixels, overrides, keys, folder):  # noqa: F811
    (folder / "Emergency.yaml").write_text((folder / "Isr.yaml").read_text())
    say(overrides, "Emergency.yaml")
    with pixels.prepare(message(0), Stopwatch()) as prepared:
        prepared.process([keys[0]], Stopwatch())
        decision = prepared.decide(1, (), WallClock().now())
    say(overrides, action="clear")
    with pixels.prepare(message(0), Stopwatch(), decision) as prepared:
        prepared.process([keys[0]], Stopwatch())
        assert "/Emergency/" in run_of(prepared.products(decision))


def test_a_decision_is_finished_with_its_own_pipeline(pixels, overrides, keys):
    with pixels.prepare(message(0), Stopwatch()) as prepared:
        prepared.process([keys[0]], Stopwatch())
        decision = prepared.decide(1, (), WallClock().now())
        run = run_of(prepared.products(decision))
    say(overrides)
    with pixels.prepare(message(0), Stopwatch(), decision) as prepared:
        prepared.process([keys[0]], Stopwatch())
        assert run_of(prepared.products(decision)) == run


def test_products_of_the_canary_are_kept_apart(central, folder, keys):  # noqa: F811 (fixtures)
    canary = Canary(share=0.5, pipelines=("Isr.yaml",))
    rule = Rule(name="all", pipelines=("Trivial.yaml",), canary=canary)
    preloader = Preloader(
        central=central,
        apdb=MemoryApdb(),
        selection=Selection((rule,), folder.joinpath, "test"),
        overrides=Overrides(object_store.root(folder / "overrides")),
        padding=60.0,
        cache_bytes=0,
    )
    pixels = ButlerPixels(preloader, object_store.root(folder / "incoming"), folder, WorkerSettings())
    found = {}
    for number, key in enumerate(keys):
        with pixels.prepare(message(number), Stopwatch()) as prepared:
            prepared.process([key], Stopwatch())
            decision = prepared.decide(1, (), WallClock().now())
            found[run_of(prepared.products(decision)).rpartition("/")[0]] = decision.info.flags
    assert found == {
        "LATISS/prompt/output-2024-06-24/Trivial": (),
        "LATISS/prompt/canary-2024-06-24/Isr": ("canary",),
    }
