"""A night of small visits that are announced and uploaded when a test wants it, into a `Cloud`."""

import json
import time

from local_cloud.topology import publisher, storage
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Status
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.domain.visit import parse_event
from prompt_processing.instruments.fan_out import detector_visits
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database

LEAD = 6.0
"""From the message to the shutter's close [s]; a night has some 50 s."""
LEAP_SECONDS = 37.0
"""Between TAI and UTC [s]."""
PATIENCE = 150.0
"""Longest wait for anything [s]."""


class CloudNight:
    """Visits and images of a night.

    Parameters
    ----------
    cloud
        Where they go.
    night
        Folder of the night.
    folder
        Where the events go that were announced.
    """

    def __init__(self, cloud, night, folder):
        self.cloud = cloud
        self._lines = (night / "events.jsonl").read_text().splitlines()
        self._raws = sorted(p for p in (night / "raw").rglob("*.fits*") if parse_raw_key(self._key(night, p)))
        self._night = night
        self.events = folder / "events.jsonl"
        first = parse_event(self._lines[0]).published.utc.unix
        self.clock_offset = first - time.time()
        self.settings = {"PROMPT_WORKER__CLOCK_OFFSET_S": str(self.clock_offset)}
        self.ledger = SqlLedger(database.engine(cloud.environment["PROMPT_REPOSITORY__LEDGER"]))
        self.keys = {}
        self.bodies = {}

    def announce(self, *numbers, lead=LEAD, publish=True):
        """Publish the messages of visits whose shutters close some seconds from now; return them."""
        for number in numbers:
            event = json.loads(self._lines[number])
            now = time.time() + self.clock_offset + LEAP_SECONDS
            event["startTime"] = now + lead - event["duration"]
            event["private_sndStamp"] = now - 1.0
            event["private_efdStamp"] = now - 38.0
            with self.events.open("a") as stream:
                stream.write(json.dumps(event) + "\n")
            (visit,) = detector_visits(parse_event(event))
            self.keys[number] = visit.key
            self.bodies[number] = visit.model_dump_json()
        found = [self.bodies[number] for number in numbers]
        if publish:
            self.publish(*found)
        return found

    def publish(self, *bodies):
        """Publish messages past our own publisher, which is part of what is tested."""
        with publisher(self.cloud.pubsub.host) as client:
            messages = [{"data": body.encode(), "attributes": {"instrument": "LATISS"}} for body in bodies]
            client.publish(topic=self.cloud.topology.next_visit, messages=messages)

    def upload(self, *numbers):
        """Upload sidecars and images; a store that is away is asked again."""
        with storage(self.cloud.gcs.url) as client:
            bucket = client.bucket(self.cloud.topology.incoming)
            for number in numbers:
                raw = self._raws[number]
                sidecar = raw.with_name(raw.name.partition(".")[0] + ".json")
                for file in (sidecar, raw):
                    bucket.blob(self._key(self._night, file)).upload_from_filename(str(file))

    def record(self, number):
        return self.ledger.find(self.keys[number])

    def wait_for(self, condition):
        """Wait until something holds, also through times without a database."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if condition():
                    return
            except StoreError:
                pass
            assert time.monotonic() < deadline, "it takes too long"
            time.sleep(0.1)

    def wait_until_working(self, number):
        self.wait_for(lambda: (record := self.record(number)) is not None and record.working is not None)

    def wait_until_finished(self, *numbers):
        self.wait_for(lambda: all((r := self.record(n)) is not None and r.outcome for n in numbers))

    def check_stop(self, worker, number):
        """Make sure that a worker ends in the time that Cloud Run gives it, and gives its visit back."""
        self.announce(number)
        self.wait_until_working(number)
        asked = time.monotonic()
        worker.stop()
        assert time.monotonic() - asked < 10.0
        assert self.record(number).working is None
        worker.start()
        self.upload(number)
        self.wait_until_finished(number)
        self.check(number)

    def check(self, *numbers):
        """Make sure that visits were processed once, and that nothing in the night is lost or duplicated."""
        for number in numbers:
            history = self.ledger.history(self.keys[number])
            assert [outcome.status for outcome in history] == [Status.PROCESSED], (number, history)
        self.audit()

    def audit(self):
        """Make sure that nothing of all that was announced so far is lost or duplicated."""
        assert "passed" in self.cloud.prompt(
            "audit", self.cloud.repo, "--events", self.events, **self.settings
        )

    @staticmethod
    def _key(night, file):
        return file.relative_to(night / "raw").as_posix()
