"""What is noticed when an image is not what its event announced."""

import pytest

from local_cloud.visits import detector_visit
from prompt_processing.config import WorkerSettings
from prompt_processing.domain.errors import PlanMismatchError
from prompt_processing.worker.plan import check_plan

INFO = {
    "instrument": "LATISS",
    "detector": 0,
    "exposure": 2026031500001,
    "observation_type": "science",
    "physical_filter": "SDSSr_65mm~empty",
    "exposure_time": 28.0,
    "ra": 10.0,
    "dec": -20.0,
    "rotation": 0.0,
}


def check(event=None, **info):
    check_plan(detector_visit(**(event or {})), {**INFO, **info}, WorkerSettings())


@pytest.mark.parametrize(
    ("event", "info"),
    [
        ({}, {}),
        ({}, {"exposure_time": 30.9}),
        ({}, {"dec": -20.0 + 59 / 3600}),
        ({}, {"rotation": 359.1}),
        ({}, {"ra": None, "dec": None, "rotation": None}),
        # What the event leaves open: a blank filter, and an angle in a system that is not the sky's.
        ({"filters": ""}, {"physical_filter": "SDSSg_65mm~empty"}),
        ({"rotationSystem": 4, "cameraAngle": 90.0}, {}),
        # Degrees of right ascension are small near a pole.
        ({"position": [10.0, -89.9]}, {"ra": 13.0, "dec": -89.9}),
    ],
)
def test_what_is_as_announced_passes(event, info):
    check(event, **info)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"instrument": "LSSTCam"}, ("LATISS 0", "LSSTCam 0")),
        ({"detector": 94}, ("LATISS 0", "LATISS 94")),
        ({"observation_type": "dark"}, ("science", "dark")),
        ({"physical_filter": "SDSSg_65mm~empty"}, ("SDSSr_65mm~empty", "SDSSg_65mm~empty")),
        ({"exposure_time": 31.5}, ("30.0 s", "31.5 s")),
        ({"exposure_time": 0.0}, ("30.0 s", "0.0 s")),
        ({"dec": -20.0 + 61 / 3600}, ("-20.00000", "-19.98306", "61 arcsec")),
        ({"rotation": 358.9}, ("0.00 deg", "358.90 deg", "1.10 deg")),
    ],
)
def test_a_difference_is_told_with_both_values(info, words):
    with pytest.raises(PlanMismatchError, match="2026031500001") as caught:
        check(**info)
    assert all(word in str(caught.value) for word in words)


def test_all_differences_are_told_at_once():
    with pytest.raises(PlanMismatchError) as caught:
        check(observation_type="dark", exposure_time=99.0)
    assert "image type" in str(caught.value)
    assert "exposure time" in str(caught.value)
