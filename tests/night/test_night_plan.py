"""What is done in a night, and when."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_cloud.visits import EVENT
from prompt_processing.domain.raws import RawKey
from prompt_processing.domain.visit import NextVisit
from prompt_processing.night.plan import Fault, Lose, Publish, PutImage, PutSidecar, Timing, plan
from prompt_processing.night.visits import ReadOut, Visit

OPENS = 1.77e9
"""When the shutter opens [UTC s since 1970]."""
TAI_UTC = 37.0
ACTIVE = {"LSSTCam": [1, 2, 3]}


def visit(number=0, *, announced=25.0, opens=OPENS, detectors=("S00", "S01", "S02"), **changes):
    """A visit of 30 s on some detectors, announced some seconds before its shutter opens."""
    opens += 40.0 * number
    event = NextVisit(**{
        **EVENT, "instrument": "LSSTCam", "groupId": f"group-{number}", "startTime": opens + TAI_UTC,
        "private_sndStamp": opens + TAI_UTC - announced, "private_efdStamp": opens - announced, **changes,
    })  # fmt: skip
    raws = [RawKey("LSSTCam", 20260315, f"MC_O_20260315_{number:06d}", "R22", name) for name in detectors]
    return Visit(
        instrument="LSSTCam",
        group=event.groupId,
        events=(event,),
        read_outs=tuple(ReadOut(raw, opens + 32.0) for raw in raws),
        opens=opens,
        closes=opens + 30.0,
    )


def planned(*visits, errors=None, seed=1, lead=20.0, jitter=0.0, **faults):
    return plan(
        visits or [visit()],
        timing=Timing(lead=lead, jitter=jitter),
        faults={Fault(name.replace("_", "-")): fraction for name, fraction in faults.items()},
        seed=seed,
        active=ACTIVE,
        on_error=[].append if errors is None else errors.append,
    )


def of_kind(kind, actions):
    return [action for action in actions if isinstance(action, kind)]


def test_an_event_is_published_first_and_each_sidecar_appears_before_its_image():
    actions = planned()
    assert [type(action).__name__ for action in actions] == ["Publish", *["PutSidecar", "PutImage"] * 3]
    publish, *puts = actions
    assert publish.at == OPENS - 25.0
    assert [json.loads(body)["detector"] for body in publish.bodies] == [1, 2, 3]
    assert {put.at for put in puts} == {OPENS + 32.0}
    assert all(put.keep == 1.0 and not put.faults for put in of_kind(PutImage, puts))


@pytest.mark.parametrize(
    ("announced", "lead", "at"), [(300.0, 20.0, -300.0), (5.0, 20.0, -20.0), (-3.0, 20.0, -20.0), (5, 0, -5)]
)
def test_an_event_has_its_lead_and_is_never_later_than_it_was(announced, lead, at):
    (publish,) = of_kind(Publish, planned(visit(announced=announced), lead=lead))
    assert publish.at == pytest.approx(OPENS + at)


def test_each_raw_has_a_jitter_of_its_own_that_the_seed_decides():
    images = of_kind(PutImage, planned(jitter=2.0))
    after = {image.raw.sensor: image.at - OPENS - 32.0 for image in images}
    assert after == pytest.approx({"S00": 0.985, "S01": 1.570, "S02": 0.367}, abs=0.001)
    assert planned(jitter=2.0) == planned(jitter=2.0)
    assert planned(jitter=2.0) != planned(jitter=2.0, seed=2)


def test_late_raws_appear_when_nobody_waits_for_them_any_more():
    puts = planned(late=1.0)[1:]
    assert {put.at for put in puts} == {OPENS + 30.0 + 60.0 + 10.0}
    assert {image.faults for image in of_kind(PutImage, puts)} == {(Fault.LATE,)}


def test_lost_raws_never_appear():
    publish, *rest = planned(lost=1.0, late=1.0)
    assert len(publish.bodies) == 3
    assert [type(action) for action in rest] == [Lose] * 3


def test_duplicates_come_again_a_moment_later():
    actions = planned(duplicate=1.0)
    first, second = of_kind(Publish, actions)
    assert (second.bodies, second.at) == (first.bodies, first.at + 1.0)
    images = of_kind(PutImage, actions)
    assert [(image.raw.sensor, image.at - OPENS) for image in images] == [
        *((sensor, 32.0) for sensor in ("S00", "S01", "S02")),
        *((sensor, 33.0) for sensor in ("S00", "S01", "S02")),
    ]
    assert len(of_kind(PutSidecar, actions)) == 3


def test_out_of_order_images_come_before_their_sidecars_and_messages_backwards():
    publish, *puts = planned(out_of_order=1.0)
    assert [json.loads(body)["detector"] for body in publish.bodies] == [3, 2, 1]
    assert [type(put) for put in puts] == [PutImage] * 3 + [PutSidecar] * 3


def test_truncated_images_keep_some_of_their_bytes():
    images = of_kind(PutImage, planned(*map(visit, range(20)), truncated=1.0))
    keep = [image.keep for image in images]
    assert len(set(keep)) == len(keep)
    assert 0.1 <= min(keep) < 0.2
    assert 0.8 < max(keep) < 0.9


def test_a_seed_decides_what_is_struck():
    def lost(seed, fraction):
        actions = planned(*map(visit, range(100)), seed=seed, lost=fraction)
        return {str(action.raw) for action in of_kind(Lose, actions)}

    assert 60 < len(lost(1, 0.3)) < 120
    assert lost(1, 0.3) == lost(1, 0.3) != lost(2, 0.3)
    assert lost(1, 0.1) < lost(1, 0.3)


def test_a_fault_changes_nothing_else():
    def times(**faults):
        actions = planned(*map(visit, range(20)), jitter=1.0, **faults)
        return {str(action.raw): action.at for action in of_kind(PutImage, actions)}

    kept = times(lost=0.5)
    assert 0 < len(kept) < 60
    assert kept.items() < times().items()


def test_raws_of_an_event_that_cannot_be_observed_appear_all_the_same():
    errors = []
    actions = planned(visit(coordinateSystem=4), errors=errors)
    assert [type(action) for action in actions] == [PutSidecar, PutImage] * 3
    assert len(errors) == 1
    assert "group-0" in errors[0]


FRACTION = st.sampled_from([0.0, 0.3, 1.0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    announced=st.lists(st.floats(-60.0, 600.0), min_size=1, max_size=4),
    lead=st.floats(0.0, 60.0),
    jitter=st.floats(0.0, 5.0),
    faults=st.fixed_dictionaries(
        dict.fromkeys(("late", "lost", "duplicate", "out_of_order", "truncated"), FRACTION)
    ),
)
def test_whatever_goes_wrong_events_have_their_lead_and_sidecars_come_first(
    seed, announced, lead, jitter, faults
):
    visits = [visit(number, announced=ahead) for number, ahead in enumerate(announced)]
    actions = planned(*visits, seed=seed, lead=lead, jitter=jitter, **faults)
    assert [action.at for action in actions] == sorted(action.at for action in actions)
    opens = {visit.group: visit.opens for visit in visits}
    first = {}
    for publish in of_kind(Publish, actions):
        first.setdefault(publish.group, publish.at)
    assert first.keys() == opens.keys()
    assert all(opens[group] - at >= lead - 1e-6 for group, at in first.items())
    order = [action for action in actions if isinstance(action, PutSidecar | PutImage)]
    images = {image.raw: image for image in reversed(of_kind(PutImage, actions))}  # the first of each raw
    for image in images.values():
        ahead = order.index(PutSidecar(*_sidecar_of(image, order))) < order.index(image)
        assert ahead != (Fault.OUT_OF_ORDER in image.faults)
    fate = Counter(str(action.raw) for action in actions if isinstance(action, Lose | PutSidecar))
    assert fate == {str(each.raw): 1 for visit in visits for each in visit.read_outs}


def _sidecar_of(image, order):
    (sidecar,) = (action for action in order if isinstance(action, PutSidecar) and action.raw == image.raw)
    return sidecar.at, sidecar.raw
