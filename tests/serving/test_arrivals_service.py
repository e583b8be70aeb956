"""What the arrivals service makes of what object stores say, and of what they only seem to say."""

import json
import tracemalloc
from contextlib import contextmanager

import pytest
from astropy.io import fits

from local_cloud.envelopes import metadata
from local_cloud.tokens import TokenIssuer
from local_cloud.visits import EVENT, detector_visit
from prompt_processing.arrivals.events import ObjectEvent
from prompt_processing.arrivals.note import note_arrival
from prompt_processing.arrivals.pointers import Arrivals
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Delivery, Outcome
from prompt_processing.domain.visit import parse_message
from prompt_processing.ledger.memory import MemoryLedger
from prompt_processing.messaging.memory import MemoryQueue
from prompt_processing.serving.arrivals import ArrivalsService
from prompt_processing.serving.envelope import S3
from prompt_processing.storage import object_store
from support.border import SUBSCRIPTION, Served, message, service_log, wrapped

OBS_ID = "AT_O_20260201_000001"
KEY = f"LATISS/20260201/{OBS_ID}/{OBS_ID}_R00_S00.fits"
OTHER = KEY.replace("000001", "000002")
SIDECAR = KEY.replace(".fits", ".json")
GROUP = EVENT["groupId"]
VISIT = detector_visit()
PREFIX = "raws/v.1"
MEGABYTE = 1_000_000
"""Far more than noting a raw takes, and far less than the large objects of these tests have."""


@pytest.fixture(scope="module")
def issuer():
    with TokenIssuer() as issuer:
        yield issuer


@pytest.fixture(autouse=True)
def log():
    with service_log() as log:
        yield log


class Landing(Served):
    """A landing store and the service that is told of its objects.

    Parameters
    ----------
    incoming, pointers
        The stores.
    address
        Where the landing store is as its notifications have it.
    """

    def __init__(self, issuer, folder, incoming, pointers, address):
        self.incoming, self.pointers = incoming, pointers
        self.bucket = address.netloc
        self.arrivals = Arrivals(incoming, pointers, WallClock())
        self.ledger, self.queue = MemoryLedger(), MemoryQueue()
        service = ArrivalsService(address, self.note, self.arrivals.exists)
        super().__init__(issuer, folder, service.handle, subscriptions=(SUBSCRIPTION, S3))

    def note(self, key):
        # As the service does it; see start_arrivals.
        try:
            note_arrival(key, self.arrivals, self.ledger, self.queue)
        finally:
            self.arrivals.forget(key)

    def put(self, key=KEY, content=None, **cards):
        """Write an object; by default a raw whose header has these cards."""
        if content is None:
            header = fits.Header({name.upper(): value for name, value in cards.items()})
            content = fits.PrimaryHDU(header=header).header.tostring().encode()
        object_store.write(object_store.child(self.incoming, key), content)

    def put_sidecar(self, content, key=SIDECAR):
        self.put(key, content if isinstance(content, bytes) else json.dumps(content).encode())

    def tell(self, key=KEY, event="OBJECT_FINALIZE", *, bucket=None, prefix=f"{PREFIX}/", message_id="1"):
        """Send a notification, and return the status of the answer."""
        attributes = {"eventType": event, "bucketId": bucket or self.bucket, "objectId": f"{prefix}{key}"}
        return self.post(wrapped(b"", message_id, **attributes)).status_code

    @property
    def pointer(self):
        return self.arrivals.find(VISIT, 0)

    @property
    def effects(self):
        """All that was ever done: pointers, arrivals in the ledger, and a message if there is one."""
        received = self.queue.receive(0.0)
        return [
            *object_store.list_after(self.pointers),
            *self.ledger.arrivals(),
            *([received] if received else []),
        ]

    def check_next(self):
        """Check that the next good raw is noted."""
        self.put(OTHER, groupid="another", curindex=1)
        assert self.tell(OTHER, message_id="2") == 204
        assert self.arrivals.find(VISIT.model_copy(update={"groupId": "another"}), 0).key == OTHER


def folder_landing(issuer, tmp_path):
    """A landing folder that seems to be a bucket: the service itself reads no object."""
    return Landing(
        issuer,
        tmp_path,
        object_store.root(tmp_path / "store/incoming"),
        object_store.root(tmp_path / "store/arrivals"),
        object_store.root(f"gs://landing/{PREFIX}"),
    )


@pytest.fixture
def landing(issuer, tmp_path):
    return folder_landing(issuer, tmp_path)


@pytest.fixture(params=["folder", "gs"])
def any_landing(request, issuer, tmp_path):
    if request.param == "folder":
        return folder_landing(issuer, tmp_path)
    bucket = request.getfixturevalue("new_bucket")
    incoming, pointers = (object_store.root(f"gs://{bucket}/{name}") for name in (PREFIX, "arrivals"))
    return Landing(issuer, tmp_path, incoming, pointers, incoming)


# What stores say.


def test_a_raw_is_noted_once_however_often_it_is_told(any_landing, log):
    any_landing.put(groupid=GROUP, curindex=1)
    assert [any_landing.tell(), any_landing.tell(), any_landing.tell(message_id="2")] == [204] * 3
    assert any_landing.pointer.key == KEY
    assert [record.visit for record in any_landing.ledger.arrivals()] == [VISIT.key]
    assert len(any_landing.effects) == 2
    assert log.problems == []


def test_a_notification_may_have_its_attributes_as_headers(landing):
    landing.put(groupid=GROUP, curindex=2)
    attributes = {"eventType": "OBJECT_FINALIZE", "bucketId": "landing", "objectId": f"{PREFIX}/{KEY}"}
    headers = landing.headers() | metadata(SUBSCRIPTION, message(b"", **attributes))
    assert landing.post(b"", headers).status_code == 204
    assert landing.arrivals.find(VISIT, 1).key == KEY


def test_an_image_may_be_told_before_its_sidecar_is_there(any_landing, log):
    any_landing.put(curindex=1)
    assert any_landing.tell() == 204
    (line,) = log.problems
    assert (line["message"], line["key"]) == ("raw cannot be used", KEY)
    assert "GROUPID" in line["error"]
    assert any_landing.effects == []
    any_landing.put_sidecar({"GROUPID": GROUP})
    assert any_landing.tell(SIDECAR) == 204
    assert any_landing.pointer.key == KEY
    assert len(any_landing.ledger.arrivals()) == 1


def test_a_sidecar_that_comes_first_says_nothing_yet(any_landing, log):
    any_landing.put_sidecar({"GROUPID": GROUP})
    assert any_landing.tell(SIDECAR) == 204
    assert any_landing.effects == []
    any_landing.put(KEY + ".fz")
    assert any_landing.tell(KEY + ".fz") == 204
    assert any_landing.pointer.key == KEY + ".fz"
    assert log.problems == []


def test_an_image_that_was_deleted_meanwhile_is_reported(any_landing, log):
    any_landing.put_sidecar({"GROUPID": GROUP})
    assert any_landing.tell() == 204
    (line,) = log.problems
    assert "no such raw" in line["error"]
    assert any_landing.effects == []
    any_landing.check_next()


def test_an_image_that_was_replaced_changes_nothing(any_landing):
    any_landing.put(groupid=GROUP, curindex=1)
    assert any_landing.tell() == 204
    first, noted = any_landing.pointer, any_landing.ledger.arrivals()
    any_landing.put(groupid=GROUP, curindex=1, observer="somebody")
    assert any_landing.tell(message_id="2") == 204
    assert (any_landing.pointer, any_landing.ledger.arrivals()) == (first, noted)


def test_an_image_that_was_repaired_is_noted(landing, log):
    landing.put(KEY, b"half")
    assert landing.tell() == 204
    assert landing.effects == []
    landing.put(groupid=GROUP, curindex=1)
    assert landing.tell(message_id="2") == 204
    assert landing.pointer.key == KEY
    assert len(log.problems) == 1


@pytest.mark.parametrize("event", ["OBJECT_DELETE", "OBJECT_METADATA_UPDATE", "OBJECT_ARCHIVE"])
def test_other_events_of_an_object_are_ignored(landing, log, event):
    landing.put(groupid=GROUP, curindex=1)
    assert landing.tell(event=event) == 204
    assert landing.effects == []
    assert log.text == ""
    landing.check_next()


def test_what_is_no_notification_is_reported_and_done_with(landing, log):
    assert (
        landing.post(wrapped(b"", "17", eventType="OBJECT_FINALIZE", bucketId="landing")).status_code == 204
    )
    (line,) = log.problems
    assert line["message_id"] == "17"
    assert "objectId" in line["error"]
    assert landing.effects == []
    landing.check_next()


def s3_body(*keys, bucket="landing", event="ObjectCreated:Put"):
    records = [
        {"eventName": event, "s3": {"bucket": {"name": bucket}, "object": {"key": f"{PREFIX}/{key}"}}}
        for key in keys
    ]
    return json.dumps({"Records": records}).encode()


def test_an_s3_store_may_tell_of_several_objects_at_once(landing, log):
    landing.put(groupid=GROUP, curindex=1)
    landing.put(OTHER, b"not FITS")
    third = KEY.replace("000001", "000003")
    landing.put(third, groupid=GROUP, curindex=2)
    encoded = third.replace("_", "%5F").replace("/", "%2F")
    body = s3_body(KEY, OTHER, "notes+on+the+night.txt", encoded)
    assert landing.post(body).status_code == 204
    assert [pointer.key for pointer in landing.arrivals.find_all(VISIT)] == [KEY, third]
    assert [line["key"] for line in log.problems] == [OTHER]


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (s3_body(KEY, event="ObjectRemoved:Delete"), 0),
        (s3_body(KEY, bucket="another"), 1),
        (b'{"Records": [{"eventName": 7}]}', 1),
        (b'{"Records": [3]}', 1),
    ],
)
def test_what_else_an_s3_store_says_has_no_effect(landing, log, body, lines):
    landing.put(groupid=GROUP, curindex=1)
    assert landing.post(body).status_code == 204
    assert landing.effects == []
    assert len(log.problems) == lines
    landing.check_next()


# Objects that are nobody's business.


def test_another_bucket_is_nobodys_business(landing, log):
    landing.put(groupid=GROUP, curindex=1)
    assert landing.tell(bucket="landing-of-others") == 204
    (line,) = log.problems
    assert line["bucket"] == "landing-of-others"
    assert landing.effects == []
    landing.check_next()


@pytest.mark.parametrize("prefix", ["", "raws/", "raws/v.10/", "raws/v.1", "raws/v.1//", "other/raws/v.1/"])
def test_another_prefix_is_nobodys_business(landing, prefix):
    landing.put(groupid=GROUP, curindex=1)
    assert landing.tell(prefix=prefix) == 204
    assert landing.effects == []
    landing.check_next()


@pytest.mark.parametrize("prefix", ["", "a", "a/b", ".hidden", "a.b.", "with blank"])
def test_the_prefix_is_that_of_the_setting(prefix):
    noted = []
    address = object_store.root(f"gs://landing/{prefix}")
    service = ArrivalsService(address, noted.append, lambda _: False)
    above = f"{prefix}/" if prefix else ""
    service._look_at(ObjectEvent("landing", f"{above}{KEY}"))
    service._look_at(ObjectEvent("landing", f"x/{above}{KEY}"))
    assert noted == [KEY]


@pytest.mark.parametrize(
    "key",
    [
        "notes.txt",
        ".json",
        "x.json",
        "",
        "/",
        "night 1/it is cloudy.fits",
        "LATISS/20260201/naïve/naïve_R00_S00.fits",
        f"{KEY}#1",
        f"{KEY}?x=1",
        KEY.replace(".fits", "%2Efits"),
        f"{KEY}\n",
        f"{KEY}\n{OTHER}",
        f"{KEY}/",
        f"LATISS//20260201/{OBS_ID}/{OBS_ID}_R00_S00.fits",
        "x" * 1000,
        "é" * 500,
        "../secret.fits",
        f"../{KEY}",
        f"LATISS/../../{KEY}",
        f"LATISS/20260201/../../../{OBS_ID}_R00_S00.fits",
        "LATISS/20260201/../.._R00_S00.fits",
        f"LATISS/20260201/{OBS_ID}/../{OBS_ID}_R00_S00.json",
        f"/etc/{KEY}",
        "LATISS/20260201/a\\..\\b/a\\..\\b_R00_S00.fits",
    ],
)
def test_a_key_that_is_no_raw_is_nobodys_business(landing, log, key):
    # What a careless path would reach.
    for above in ("", "../", "../../"):
        object_store.write(landing.incoming.join(f"{above}{KEY}"), b"")
    assert landing.tell(key) == 204
    assert landing.effects == []
    assert log.text == ""
    landing.check_next()


def test_strange_keys_in_a_bucket_are_nobodys_business(issuer, tmp_path, new_bucket, log):
    incoming, pointers = (object_store.root(f"gs://{new_bucket}/{name}") for name in (PREFIX, "arrivals"))
    landing = Landing(issuer, tmp_path, incoming, pointers, incoming)
    for key in ("ä b+c%20d#e?f/x.fits", "../../x.fits", "LATISS/../../x.fits", "x" * 1000, "a\nb.json"):
        assert landing.tell(key) == 204
    assert landing.effects == []
    assert log.text == ""
    landing.check_next()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (KEY.replace("R00_S00", "R22_S11"), "no detector R22_S11"),
        (KEY.replace("LATISS", "Hubble"), "Hubble"),
        (KEY.replace(OBS_ID, "OBS"), "OBS"),
        (KEY.replace(OBS_ID, "--"), "--"),
        (KEY.replace("20260201_", "99999999_"), "99999999"),
        (KEY.replace("LATISS", "L" * 1000), "L" * 1000),
    ],
)
def test_a_key_that_no_raw_can_have_is_reported(landing, log, key, reason):
    if len(key) < 200:
        landing.put(key, groupid=GROUP, curindex=1)
    assert landing.tell(key) == 204
    (line,) = log.problems
    assert reason in line["error"]
    assert landing.effects == []
    landing.check_next()


def test_a_key_may_be_as_long_as_a_bucket_allows(issuer, tmp_path, new_bucket, log):
    root = object_store.root(f"gs://{new_bucket}")
    landing = Landing(issuer, tmp_path, root, object_store.root(f"gs://{new_bucket}/arrivals"), root)
    name = "A" * 490
    assert landing.tell(f"LATISS/20260201/{name}/{name}_R00_S00.fits", prefix="") == 204
    assert len(log.problems) == 1
    landing.put(OTHER, groupid="another", curindex=1)
    assert landing.tell(OTHER, prefix="") == 204
    assert len(landing.ledger.arrivals()) == 1


# Objects that are not what they should be.


@contextmanager
def little_memory():
    """Check that what is done inside never has much in memory."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * MEGABYTE


def test_a_sidecar_of_a_million_rows_is_not_read(any_landing, log, monkeypatch):
    sizes = []
    read_start = object_store.read_start

    def watched(path, size):
        data = read_start(path, size)
        sizes.append(len(data or b""))
        return data

    monkeypatch.setattr(object_store, "read_start", watched)
    any_landing.put(groupid=GROUP, curindex=1)
    any_landing.put_sidecar(
        b'{"rows": [' + b"1234567890123456789,\n" * 1_000_000 + b'0], "GROUPID": "other"}'
    )
    with little_memory():
        assert any_landing.tell(SIDECAR) == 204
    assert sum(sizes) < MEGABYTE
    assert any_landing.pointer.key == KEY
    assert log.problems == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{half",
        b"null",
        b"[]",
        b"17",
        b"1e999",
        b'"2026-03-15T01:00:00.000"',
        b'["GROUPID"]',
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b'{"GROUPID":' * 5_000,
        b'{"GROUPID": ' + b"9" * 50_000 + b"}",
        b'{"GROUPID": null}',
        b'{"GROUPID": 17}',
        b'{"GROUPID": ""}',
        b'{"GROUPID": "  "}',
        b'{"GROUPID": ["g"]}',
        b'{"groupid": "g"}',
    ],
)
def test_a_sidecar_that_tells_nothing_is_as_good_as_none(landing, log, content):
    landing.put(curindex=1)
    landing.put_sidecar(content)
    assert landing.tell(SIDECAR) == 204
    (line,) = log.problems
    assert "GROUPID is missing" in line["error"]
    assert landing.effects == []
    landing.put(groupid=GROUP, curindex=1)
    assert landing.tell() == 204
    assert landing.pointer.key == KEY


@pytest.mark.parametrize(
    "group",
    ["g" * 257, "g" * 60_000, ":" * 250, "é" * 250, "\ud800", "a\0b"],
    ids=["long", "very long", "escaped", "accents", "surrogate", "null"],
)
def test_a_group_that_no_visit_can_have_is_reported(landing, log, group):
    landing.put(curindex=1)
    landing.put_sidecar({"GROUPID": group})
    assert landing.tell() == 204
    (line,) = log.problems
    assert (line["message"], line["key"]) == ("raw cannot be used", KEY)
    assert landing.effects == []
    landing.check_next()


@pytest.mark.parametrize("group", ["..", ".", "a/b", "../../x", "a b#?%", "Grüße", "g" * 200, "a\nb"])
def test_a_strange_group_is_like_any_other(landing, group):
    landing.put(curindex=1)
    landing.put_sidecar({"GROUPID": group})
    assert landing.tell() == 204
    visit = VISIT.model_copy(update={"groupId": group})
    assert landing.arrivals.find(visit, 0).group == group
    assert [record.visit for record in landing.ledger.arrivals()] == [visit.key]
    assert len(list(object_store.list_after(landing.pointers))) == 1


def cards(*lines):
    """Return a header of these lines as they are."""
    standard = (
        "SIMPLE  =                    T",
        "BITPIX  =                    8",
        "NAXIS   =                    0",
    )
    text = "".join(line.ljust(80) for line in (*standard, *lines, "END"))
    return text.ljust(2880).encode("latin1")


CURINDEX = "CURINDEX=                    1"
NAMED = f"GROUPID = '{GROUP}'"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SIMPLE",
        bytes(10_000),
        b"\xff" * 10_000,
        bytes(range(256)) * 40,
        b"SIMPLE  =                    T" + bytes(range(256)) * 40,
        cards(NAMED, CURINDEX)[:100],
        cards(NAMED, CURINDEX)[:-160].rstrip()[:-3],
        cards("GROUPID = 'no end of this", CURINDEX),
        cards("GROUPID = no text at all", CURINDEX),
        cards("GROUPID =", CURINDEX),
        cards("GROUPID =                   17", CURINDEX),
        cards(NAMED, "CURINDEX= 1 x 2"),
        cards(NAMED, "CURINDEX= 'one'"),
        cards(NAMED, "CURINDEX=                    T"),
        cards(NAMED, "CURINDEX=                  1.5"),
        cards(NAMED, "CURINDEX=                   -1"),
        cards(NAMED, f"CURINDEX= {'9' * 60}"),
        cards(NAMED, "CURINDEX=           2147483649"),
    ],
)
def test_a_header_that_makes_no_sense_is_reported(landing, log, content):
    landing.put(KEY, content)
    assert landing.tell() == 204
    (line,) = log.problems
    assert (line["message"], line["key"]) == ("raw cannot be used", KEY)
    assert landing.effects == []
    landing.check_next()


@pytest.mark.parametrize("card", ["GROUPID = 'no end of this", "CURINDEX= 1 x 2"])
def test_a_raw_with_a_damaged_card_whose_sidecar_tells_the_group_ends_its_visit(landing, log, card):
    landing.put(KEY, cards(card))
    landing.put_sidecar({"GROUPID": GROUP})
    assert landing.tell() == 204
    assert (landing.pointer.key, landing.pointer.snap) == (KEY, 0)


def test_a_header_that_never_ends_is_not_read_to_its_end(any_landing, log):
    any_landing.put(KEY, cards(NAMED, CURINDEX)[:400] + b"COMMENT more".ljust(80) * 250_000)
    with little_memory():
        assert any_landing.tell() == 204
    (line,) = log.problems
    assert "not a readable FITS file" in line["error"]
    assert any_landing.effects == []
    any_landing.check_next()


# What becomes of visits, and of stores that are away.


def give_up(landing, reason="no-image"):
    claim = landing.ledger.claim(VISIT, Delivery("m", VISIT.model_dump_json()), owner="w")
    landing.ledger.record_outcome(claim, Outcome.skipped(reason))


def test_an_image_that_comes_late_reopens_its_visit_once(any_landing, log):
    give_up(any_landing)
    any_landing.put(groupid=GROUP, curindex=1)
    assert [any_landing.tell(), any_landing.tell(), any_landing.tell(message_id="2")] == [204] * 3
    assert parse_message(any_landing.queue.receive(0.0).delivery.body) == VISIT
    assert any_landing.queue.receive(0.0) is None
    assert any_landing.ledger.find(VISIT.key).outcome is None
    (line,) = log.lines("INFO")
    assert (line["message"], line["group"], line["key"]) == ("visit reopened by its image", GROUP, KEY)


def test_a_visit_that_ended_in_another_way_stays_ended(landing):
    give_up(landing, "expired")
    landing.put(groupid=GROUP, curindex=1)
    assert landing.tell() == 204
    assert str(landing.ledger.find(VISIT.key).outcome) == "skipped:expired"
    assert landing.queue.receive(0.0) is None


def test_an_image_that_nobody_has_announced_is_known_to_the_ledger(landing):
    landing.put(groupid=GROUP, curindex=1)
    assert landing.tell() == 204
    (record,) = landing.ledger.arrivals(without_visit=True)
    assert (record.visit, record.pointer.key) == (VISIT.key, KEY)
    assert landing.ledger.detector_visits() == []
    assert landing.queue.receive(0.0) is None


def test_a_second_image_of_a_snap_is_reported_and_not_used(landing, log):
    landing.put(groupid=GROUP, curindex=1)
    landing.put(OTHER, groupid=GROUP, curindex=1)
    assert [landing.tell(), landing.tell(OTHER)] == [204, 204]
    (line,) = log.problems
    assert (line["key"], line["used"]) == (OTHER, KEY)
    assert landing.pointer.key == KEY


def away(*_, **__):
    raise StoreError("it is away")


@pytest.mark.parametrize("what", ["stat", "read_start", "create"])
def test_a_store_that_is_away_is_asked_again_later(landing, log, monkeypatch, what):
    landing.put(groupid=GROUP, curindex=1)
    with monkeypatch.context() as patch:
        patch.setattr(object_store, what, away)
        assert landing.tell() == 503
    (line,) = log.problems
    assert line["error"] == "it is away"
    assert landing.effects == []
    assert landing.tell() == 204
    assert len(landing.effects) == 2


def test_a_ledger_that_is_away_is_asked_again_later(landing, log, monkeypatch):
    give_up(landing)
    landing.put(groupid=GROUP, curindex=1)
    with monkeypatch.context() as patch:
        patch.setattr(landing.ledger, "record_arrival", away)
        assert landing.tell() == 503
    assert landing.ledger.arrivals() == []
    assert landing.tell() == 204
    assert landing.pointer.key == KEY
    assert parse_message(landing.queue.receive(0.0).delivery.body).key == VISIT.key


def test_a_message_that_cannot_be_published_is_left_to_a_sweep(landing, log, monkeypatch):
    give_up(landing)
    landing.put(groupid=GROUP, curindex=1)
    with monkeypatch.context() as patch:
        patch.setattr(landing.queue, "publish", away)
        assert landing.tell() == 503
    assert landing.tell() == 204
    assert [record.visit for record in landing.ledger.stale()] == [VISIT]


def test_the_sidecar_of_a_store_that_is_away_comes_again_too(landing, monkeypatch):
    landing.put(curindex=1)
    landing.put_sidecar({"GROUPID": GROUP})
    with monkeypatch.context() as patch:
        patch.setattr(object_store, "stat", away)
        assert landing.tell(SIDECAR) == 503
    assert landing.tell(SIDECAR) == 204
    assert landing.pointer.key == KEY


def test_what_was_noted_is_forgotten_so_that_a_season_fits_into_memory(landing):
    for number in range(1, 6):
        key = KEY.replace("000001", f"{number:06}")
        landing.put(key, groupid=f"group {number}", curindex=1)
        assert landing.tell(key) == 204
    assert landing.arrivals._seen == {}
