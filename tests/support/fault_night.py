"""A night of small visits that have all arrived, and workers that follow a plan of faults."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from prompt_processing.audit.collect import collect, read_expected
from prompt_processing.audit.judge import judge
from prompt_processing.domain.clock import WallClock
from prompt_processing.domain.outcome import Status
from prompt_processing.domain.raws import parse_raw_key
from prompt_processing.factory.stores import Stores
from prompt_processing.factory.worker import Factory
from support.engines import wait_for
from support.nights import copy_repository

N_VISITS = 10


class Night:
    """A repository whose queue holds all visits of a night, and whose landing store holds all images."""

    def __init__(self, folder, prepared, night):
        self.repo = copy_repository(prepared, folder / "repo")
        self.night = night
        self.events = folder / "events.jsonl"
        self.plan = folder / "plan"
        self.plan.mkdir()
        self.ledger = Stores.open(self.repo).ledger

    def send(self, *, n_visits=N_VISITS):
        """Let images and messages of the first visits arrive."""
        lines = (self.night / "events.jsonl").read_text().splitlines()
        self.events.write_text("\n".join(lines[:n_visits]))
        visits = read_expected(self.events).visits
        factory, folder = Factory(self.repo, WallClock()), self.night / "raw"
        incoming = Path(factory.stores.incoming.ospath)
        for raw in filter(None, (parse_raw_key(p.relative_to(folder).as_posix()) for p in folder.rglob("*"))):
            (incoming / str(raw)).parent.mkdir(parents=True, exist_ok=True)
            for key in (raw.sidecar, str(raw)):
                shutil.copyfile(folder / key, incoming / key)
            factory.note_arrival(str(raw))
        factory.stores.publisher.publish([visit.model_dump_json() for visit in visits.values()])
        return list(visits)

    @contextmanager
    def worker(self, owner, *, engines, action, points):
        """Run a worker that follows the plan; provide its process and the numbers of its first engines."""
        program = Path(__file__).parents[1] / "support" / "fault_worker.py"
        command = [sys.executable, program, self.repo, self.plan, owner, engines, int(action), points]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, env=environment, text=True
        ) as process:
            try:
                yield process, [int(number) for number in process.stdout.readline().split()]
            finally:
                process.terminate()
                try:
                    process.wait(timeout=30)
                finally:
                    process.kill()

    def was_at(self, key, point):
        return (self.plan / f"{key.group} {point}").exists()

    def when_at(self, key, point):
        return (self.plan / f"{key.group} {point}").stat().st_mtime

    def skip(self, key, points):
        """Let engines go past some points of a visit."""
        for point in points:
            (self.plan / f"{key.group} {point}").touch()

    def is_finished(self, keys):
        records = [self.ledger.find(key) for key in keys]
        return all(record and record.outcome for record in records)

    def wait_until_finished(self, keys):
        wait_for(lambda: self.is_finished(keys), every=1.0)

    def audit(self):
        return judge(collect(self.repo, self.events))

    def check(self, keys):
        """Make sure that all went as if nothing had happened."""
        for key in keys:
            assert [outcome.status for outcome in self.ledger.history(key)] == [Status.PROCESSED], key
        found = self.audit()
        assert found.passed, found.findings
        return found
