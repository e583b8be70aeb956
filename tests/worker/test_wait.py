"""What a waiting worker looks at, and when."""

import itertools

import pytest
from astropy.io import fits
from astropy.time import Time

from local_cloud.visits import EVENT, detector_visit
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.config import WorkerSettings
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.storage import object_store
from prompt_processing.worker.wait import AFTER_HINT, Images, ImageWaiter

DETECTORS = {93: "R22_S10", 94: "R22_S11", 95: "R22_S12"}


class Night:
    """A landing store, and a clock that only waiting moves."""

    def __init__(self, folder):
        self.folder = folder
        self.seconds = 0.0
        self.arrivals = Arrivals(
            object_store.root(folder / "in"), object_store.root(folder / "arrivals"), self
        )
        self.noted = []
        self.pauses = []
        self.happenings = {}
        """What happens in the n-th pause, and whether it ends with a hint."""

    def now(self):
        return Time(EVENT["startTime"] + self.seconds, format="unix_tai", scale="tai")

    def note(self, key):
        self.noted.append(key)
        self.arrivals.record(key)

    def wait(self, timeout):
        self.pauses.append(timeout)
        self.seconds += timeout
        action = self.happenings.get(len(self.pauses))
        return bool(action and action())

    def put(self, number, detector, group):
        obs_id = f"MC_O_20260201_{number:06d}"
        key = f"LSSTCam/20260201/{obs_id}/{obs_id}_{DETECTORS[detector]}.fits"
        path = self.folder / "in" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.PrimaryHDU(header=fits.Header({"GROUPID": group, "CURINDEX": 1})).writeto(path)
        return key

    def waiter(self):
        return ImageWaiter(
            arrivals=self.arrivals, note=self.note, hints=self, ledger=MemoryLedger(), clock=self,
            settings=WorkerSettings(), monotonic=lambda: self.seconds,
        )  # fmt: skip


@pytest.fixture
def night(tmp_path):
    return Night(tmp_path)


def visit(group="now"):
    return detector_visit(instrument="LSSTCam", detector=94, groupId=group)


def test_without_notifications_a_worker_notes_its_own_image_and_no_other(night):
    for number, detector in itertools.product(range(1, 30), DETECTORS):
        night.put(number, detector, f"earlier {number}")
    for detector in DETECTORS:
        night.put(30, detector, "now")
    images = night.waiter().wait(visit())
    assert isinstance(images, Images)
    (own,) = night.noted
    assert own.endswith("000030_R22_S11.fits")
    # Nobody lists before an image could have been noted in the ordinary way.
    assert night.seconds == pytest.approx(EVENT["duration"] + WorkerSettings().listing_interval_s)


def test_a_late_image_of_an_earlier_visit_is_noted_as_well(night):
    late = night.put(1, 94, "earlier")
    night.waiter().wait(visit())
    assert night.noted == [late]


def test_a_hint_that_comes_before_its_pointer_is_followed_by_looks_soon_after(night):
    key = night.put(1, 94, "now")
    night.happenings = {3: lambda: True, 4: lambda: night.arrivals.record(key) and False}
    assert isinstance(night.waiter().wait(visit()), Images)
    assert night.pauses[3] == AFTER_HINT[0]
    assert len(night.pauses) == 4


def test_a_hint_that_is_of_no_use_costs_a_few_looks(night):
    night.happenings = {3: lambda: True}
    night.waiter().wait(visit())
    assert tuple(night.pauses[3:6]) == AFTER_HINT
    assert night.pauses[6] > max(AFTER_HINT)
