"""A night of two detectors of LSSTCam, one of each vendor, from raws to alerts."""

import json

import pytest
import yaml
from astropy.coordinates import SkyCoord
from astropy.table import Table
from click.testing import CliRunner
from lsst.daf.butler import Butler

from prompt_processing.cli.app import main
from prompt_processing.domain.outcome import Status
from prompt_processing.instruments.cameras import LSSTCAM
from prompt_processing.simulation.night import simulate_night
from prompt_processing.views.collect import collect
from support.equal import assert_pipetask_agrees
from support.nights import copy_repository, play, prepare

pytestmark = pytest.mark.slow

DETECTORS = {76: "R20_S11", 94: "R22_S11"}


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lsstcam") / "night"
    simulate_night(folder, instrument="LSSTCam", detectors=list(DETECTORS), seed=1, visits=2, size="small")
    return folder


@pytest.fixture(scope="module")
def played(night):
    repo = prepare(night.parent / "repo", night)
    visits, problems = play(repo, night)
    assert problems == []
    return repo, visits


def test_each_detector_has_its_raws_and_its_place(night):
    events = [json.loads(line) for line in (night / "events.jsonl").read_text().splitlines()]
    assert len(events) == 2
    ra, dec = events[0]["position"]
    for number, name in DETECTORS.items():
        assert len(list((night / "raw").rglob(f"*_{name}.fits"))) == 2
        exposures = Table.read(night / "truth" / name / "exposures.ecsv")
        science = exposures[exposures["kind"] == "science"][0]
        predicted = LSSTCAM.centre(number, ra, dec, events[0]["cameraAngle"])
        true = SkyCoord(science["true_ra"], science["true_dec"], unit="deg")
        # Off by no more than the error of the pointing and, far from the boresight, of the angle.
        assert true.separation(SkyCoord(*predicted, unit="deg")).arcsec < 40.0


def test_the_repository_knows_which_detectors_it_can_process(played):
    settings = yaml.safe_load((played[0] / "prompt.yaml").read_text())
    assert settings["instruments"]["detectors"] == {"LSSTCam": list(DETECTORS)}


def test_every_detector_visit_becomes_alerts(played):
    _, visits = played
    assert sorted(visit.detector for visit in visits) == [76, 76, 94, 94]
    assert [(visit.outcome.status, visit.outcome.flags) for visit in visits] == [(Status.PROCESSED, ())] * 4
    assert all(visit.n_alerts > 10 for visit in visits)


def test_alerts_are_where_things_have_changed(played, night):
    assessment = collect(played[0], night).assessment
    assert assessment.completeness_bright > 0.9
    assert assessment.astrometric_error_arcsec < 0.1


def test_the_audit_passes(played, night):
    result = CliRunner().invoke(main, ["audit", str(played[0]), "--events", str(night)])
    assert result.exit_code == 0, result.output
    assert "4 processed" in result.output


def test_images_of_both_detectors_are_in_the_central_butler(played):
    with Butler.from_config(played[0]) as butler:
        refs = butler.query_datasets(
            "difference_image", collections="LSSTCam/prompt/*", find_first=False, instrument="LSSTCam"
        )
        assert sorted(ref.dataId["detector"] for ref in refs) == [76, 76, 94, 94]


@pytest.mark.parametrize("pipeline", ["ApPipe", "SingleFrame", "Isr"])
def test_pipetask_gives_the_same_outputs_as_the_worker(played, night, tmp_path, pipeline):
    repo = copy_repository(played[0], tmp_path / "repo")
    assert_pipetask_agrees(repo, night, "LSSTCam", pipeline)
