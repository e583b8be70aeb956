"""The observing day of a detector-visit."""

import pytest

from local_cloud.visits import detector_visit
from prompt_processing.selection.rules import observing_day

NOON = 1773576000.0
"""2026-03-15T12:00:00 TAI, in seconds since 1970."""


@pytest.mark.parametrize(
    ("seconds", "days"),
    [
        (-0.5, (20260314, 20260315)),
        (0.0, (20260315, 20260314)),
        (11.9 * 3600, (20260315, 20260314)),
        (12.1 * 3600, (20260315, 20260316)),
    ],
)
def test_a_day_ends_at_noon_and_has_a_neighbour(seconds, days):
    visit = detector_visit(startTime=NOON + seconds)
    assert visit.days == days
    assert visit.day_obs == int(f"{observing_day(visit):%Y%m%d}")


def test_the_usual_place_comes_first_and_the_one_without_a_day_last():
    paths = detector_visit(groupId="g#1", startTime=NOON).paths
    assert paths == ("LATISS/20260315/g_231/0", "LATISS/20260314/g_231/0", "LATISS/g_231/0")
