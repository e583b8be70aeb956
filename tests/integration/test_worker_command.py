"""``prompt worker run`` as an operator runs it."""

import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from prompt_processing.audit.collect import read_expected
from prompt_processing.cli import main
from prompt_processing.domain.clock import WallClock
from prompt_processing.factory.stores import Stores
from support.engines import wait_for

pytestmark = pytest.mark.slow


@contextmanager
def worker(repo, *options):
    """Run a worker; it is stopped at the end and must say that all is well."""
    command = [Path(sys.executable).with_name("prompt"), "worker", "run", repo, *options]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
            assert process.stderr.read().rstrip().endswith("stopped")
        finally:
            process.kill()


def put(night, repo):
    """Let the raws of a night appear in the landing store, each whole."""
    for file in sorted((night / "raw").rglob("*.*"), reverse=True):
        target = repo / "incoming" / file.relative_to(night / "raw")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".copying-{target.name}")
        shutil.copyfile(file, temporary)
        temporary.replace(target)


def test_a_worker_takes_messages_finds_images_and_stands_an_audit(repo, night):
    visits = read_expected(night / "events.jsonl").visits
    ledger = Stores.open(repo).ledger
    with worker(repo, "--engines", "2"):
        put(night, repo)
        wait_for(lambda: len(ledger.arrivals()) == len(visits))
        Stores.open(repo).publisher.publish([visit.model_dump_json() for visit in visits.values()])
        wait_for(lambda: ledger.counts() == {"processed": len(visits)}, every=0.5)
    audit = CliRunner().invoke(main, ["audit", str(repo), "--events", str(night)])
    assert audit.exit_code == 0, audit.output
    assert Stores.open(repo).publisher.receive(0.0) is None


def test_a_worker_that_is_stopped_while_it_waits_gives_its_visit_back(repo, night):
    (first, *_) = read_expected(night / "events.jsonl").visits.values()
    now = WallClock().now().unix_tai
    visit = first.model_copy(update={"private_sndStamp": now, "startTime": now + 600.0})
    ledger = Stores.open(repo).ledger
    Stores.open(repo).publisher.publish([visit.model_dump_json()])
    with worker(repo):
        wait_for(lambda: _is_working(ledger, visit.key))
    record = ledger.find(visit.key)
    assert record.outcome is None
    assert record.working is None
    assert record.attempts[0].error.startswith("drained:")
    assert Stores.open(repo).publisher.receive(0.0) is not None


def _is_working(ledger, key):
    record = ledger.find(key)
    return record is not None and record.working is not None
