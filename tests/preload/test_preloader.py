"""Everything that a visit needs before its image."""

import pytest
from lsst.daf.butler import Butler, CollectionType, Timespan
from sqlalchemy.exc import OperationalError

from prompt_processing.domain import collections
from prompt_processing.domain.errors import (
    ConfigError,
    MissingInputError,
    NoCalibError,
    NoTemplateError,
    RepositoryError,
    StoreError,
)
from prompt_processing.instruments.skymap import SKYMAP
from support.central import message
from support.material import ISR

CONFIGURED = """
description: A task with a setting.
tasks:
  isr:
    class: support.trivial.IsrTask
    config:
      {}
"""
TEMPLATES = collections.templates("LATISS")


def found(loaded):
    return {name: len(refs) for name, refs in loaded.run.inputs.items()}


def test_what_is_loaded_follows_from_the_pipeline(new_preloader):
    loaded = new_preloader().prepare(message(0))
    assert loaded.run.graph.name == "Trivial"
    assert found(loaded) == {"bias": 1, "dark": 1, "flat": 1, "template_coadd": 4}
    assert loaded.missing == ()
    assert found(new_preloader("Isr").prepare(message(0))) == {"bias": 1, "dark": 1, "flat": 1}


def test_without_templates_the_next_pipeline_is_taken_and_what_is_missing_is_told(new_preloader, central):
    central.collections.redefine_chain(TEMPLATES, [])
    loaded = new_preloader().prepare(message(0))
    assert (loaded.run.graph.name, loaded.missing) == ("Isr", ("template_coadd",))
    with pytest.raises(NoTemplateError, match="no template at ra"):
        new_preloader("Trivial").prepare(message(0))


def test_elsewhere_on_the_sky_there_is_no_template(new_preloader):
    loaded = new_preloader().prepare(message(0, position=[10.0, 60.0]))
    assert loaded.missing == ("template_coadd",)


def test_a_template_set_with_a_hole_is_used_as_far_as_it_goes(new_preloader, central):
    refs = central.query_datasets("template_coadd", collections=TEMPLATES)
    central.pruneDatasets(refs[:1], unstore=True, purge=True, disassociate=True)
    assert found(new_preloader().prepare(message(0)))["template_coadd"] == 3


def test_a_template_whose_file_is_gone_is_told(new_preloader, central):
    ref = central.query_datasets("template_coadd", collections=TEMPLATES)[0]
    central.getURI(ref).remove()
    with pytest.raises(RepositoryError, match=r"template_coadd.*vanished"):
        new_preloader("Trivial").prepare(message(0))


def test_calibs_are_those_that_are_valid_at_the_time_of_the_observation(new_preloader, central):
    visit = message(0)
    calibs = collections.calibs("LATISS")
    (bias,) = central.query_datasets("bias", collections="calibs")
    central.registry.decertify(calibs, "bias", Timespan(None, None))
    with pytest.raises(NoCalibError, match=r"no bias valid at .* for filter SDSSr_65mm~empty"):
        new_preloader("Isr").prepare(visit)
    # Valid until the moment before the shutter opens, and from the moment after it has closed.
    begin, end = Timespan.fromInstant(visit.predicted_shutter_close).begin, visit.predicted_shutter_close
    central.registry.certify(calibs, [bias], Timespan(end, None))
    with pytest.raises(NoCalibError, match="no bias"):
        new_preloader("Isr").prepare(visit)
    central.registry.decertify(calibs, "bias", Timespan(None, None))
    central.registry.certify(calibs, [bias], Timespan(None, begin))
    assert found(new_preloader("Isr").prepare(visit))["bias"] == 1


def test_an_event_that_names_no_filter_gets_the_calibs_and_templates_of_all(new_preloader, central):
    central.collections.register("more", CollectionType.RUN)
    image = central.get("bias", instrument="LATISS", detector=0, collections="calibs")
    ref = central.put(
        image, "flat", instrument="LATISS", detector=0, physical_filter="SDSSg_65mm~empty", run="more"
    )
    central.registry.certify(collections.calibs("LATISS"), [ref], Timespan(None, None))
    assert found(new_preloader().prepare(message(0, filters="")))["flat"] == 2
    assert found(new_preloader().prepare(message(0)))["flat"] == 1


def test_another_skymap_under_the_same_name_is_refused(new_preloader, central):
    preloader = new_preloader()
    preloader.prepare(message(0))
    row = {
        "name": SKYMAP.name, "hash": b"another", "tract_max": 1, "patch_nx_max": 1, "patch_ny_max": 1,
    }  # fmt: skip
    central.registry.syncDimensionData("skymap", row, update=True)
    with pytest.raises(RepositoryError, match="another geometry"):
        preloader.prepare(message(1))


def test_a_registry_that_does_not_answer_is_a_store_error(new_preloader, central, monkeypatch):
    def lost(*_args, **_kwargs):
        raise OperationalError("SELECT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(central, "query_datasets", lost)
    with pytest.raises(StoreError, match="server closed the connection"):
        new_preloader().prepare(message(0))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no such pipeline file"),
        ("tasks: [", "Trivial.yaml"),
        (ISR.replace("IsrTask", "NoTask"), "NoTask"),
        (ISR.replace("support.trivial", "no.module"), "no.module"),
        (CONFIGURED.format("nothing: 1"), "nothing"),
        (CONFIGURED.format("connections.summary: bias"), "bias"),
    ],
    ids=["missing", "not YAML", "unknown task", "unknown module", "unknown setting", "wrong dataset type"],
)
def test_a_pipeline_that_cannot_be_read_is_told_with_its_file(new_preloader, folder, text, reason):
    file = folder / "Trivial.yaml"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(ConfigError, match=r"Trivial\.yaml") as told:
        new_preloader("Trivial").prepare(message(0))
    assert reason in str(told.value)


def test_a_changed_pipeline_file_acts_on_the_next_visit(new_preloader, folder):
    preloader = new_preloader("Trivial")
    assert "subtract" in preloader.prepare(message(0)).run.graph.late
    (folder / "Trivial.yaml").write_text((folder / "Isr.yaml").read_text())
    assert preloader.prepare(message(1)).run.graph.late == ("isr",)


def test_visits_may_come_in_any_order_and_share_what_they_need(new_preloader, central, monkeypatch):
    preloader = new_preloader()
    read = []
    get = central.get
    monkeypatch.setattr(central, "get", lambda ref: read.append(ref) or get(ref))
    for number in (3, 1, 2, 1):
        loaded = preloader.prepare(message(number))
        assert loaded.run.data_ids.values["group"] == f"group-{number}"
        assert len(found(loaded)) == 4
    # Four patches, three calibs, and the detector's shape.
    assert len(read) == 8


def test_what_others_add_to_the_central_butler_is_seen_by_the_next_visit(new_preloader, central):
    preloader = new_preloader()
    central.collections.redefine_chain(TEMPLATES, [])
    assert preloader.prepare(message(0)).missing == ("template_coadd",)
    with Butler.from_config(central._config.configDir.ospath, writeable=True) as another:
        another.collections.redefine_chain(TEMPLATES, [f"{TEMPLATES}/r"])
    assert preloader.prepare(message(1)).missing == ()
    row = {
        "name": SKYMAP.name, "hash": b"another", "tract_max": 1, "patch_nx_max": 1, "patch_ny_max": 1,
    }  # fmt: skip
    with Butler.from_config(central._config.configDir.ospath, writeable=True) as another:
        another.registry.syncDimensionData("skymap", row, update=True)
    with pytest.raises(RepositoryError, match="another geometry"):
        preloader.prepare(message(2))


def test_something_else_that_is_missing_is_no_missing_calib(new_preloader, folder):
    text = ISR.replace("support.trivial.IsrTask", "support.trivial.ModelTask").replace("isr:", "model:")
    (folder / "Model.yaml").write_text(text)
    with pytest.raises(MissingInputError, match="no trained_model for pipeline Model") as told:
        new_preloader("Model").prepare(message(0))
    assert told.value.code == "no-input"
