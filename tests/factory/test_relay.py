"""The relay of a repository, with its real stores, and the commands about it."""

import json
import urllib.request

import pytest
from click.testing import CliRunner

from local_cloud.cloud import Service
from local_cloud.visits import detector_visit
from prompt_processing.cli import main
from prompt_processing.domain.outcome import Delivery, Outcome
from prompt_processing.factory.relay import open_relay
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database
from prompt_processing.worker.metrics import outcome_metrics
from support.engines import wait_for
from support.points import TestClock


@pytest.fixture
def repo(tmp_path):
    """A folder with a ledger in which metrics are pending, and alerts whose decision is gone."""
    (tmp_path / "butler.yaml").touch()
    engine = database.engine(f"sqlite:///{tmp_path}/ledger.sqlite3")
    ledger, visit = SqlLedger(engine), detector_visit()
    claim = ledger.claim(visit, Delivery("m", "{}"), owner="w")
    outcome = Outcome.skipped("no-image")
    made = outcome_metrics(visit, outcome, ledger.find(visit.key).times, TestClock().now())
    ledger.record_pending(claim, "metrics", error="store: away", payload=made.to_json())
    ledger.record_pending(claim, "alerts", error="store: away")
    ledger.record_outcome(claim, outcome)
    engine.dispose()
    return tmp_path


def test_what_can_be_sent_is_sent_and_measured(repo):
    relay, metrics = open_relay(repo)
    assert metrics.is_ready()
    assert 'relay_pending_effects{effect="metrics"} 1.0' in metrics.page().decode()
    assert relay.relay_all() == (1, 1)
    (file,) = repo.glob("metrics/verify/*/*/*.json")
    assert json.loads(file.read_text())["meta"]["reason"] == "no-image"
    page = metrics.page().decode()
    assert 'relay_pending_effects{effect="alerts"} 1.0' in page
    assert 'relay_pending_effects{effect="metrics"}' not in page
    assert 'relay_tries_total{effect="alerts",result="failed"} 1.0' in page
    assert relay.is_alive()


@pytest.mark.slow
def test_the_service_sends_what_is_pending_and_ends_when_told(repo):
    with Service("relay", {"PROMPT_REPO": str(repo)}, "main.py") as service:
        wait_for(lambda: list(repo.glob("metrics/verify/*/*/*.json")), timeout=30.0)
        with urllib.request.urlopen(f"{service.url}metrics", timeout=10) as answer:  # noqa: S310 (loopback)
            page = answer.read().decode()
        service.stop()
        assert service.exit_code == 0
    assert 'relay_pending_effects{effect="alerts"} 1.0' in page


def test_the_commands_tell_and_send_what_is_pending(repo):
    def run(*words, status=0):
        found = CliRunner().invoke(main, ["effects", *words])
        assert found.exit_code == status, found.output
        return found.stdout

    rows = json.loads(run("list", str(repo), "--json"))
    assert {row["effect"]: row["error"] for row in rows} == {
        "metrics": "store: away",
        "alerts": "store: away",
    }
    assert "2 would be tried" in run("relay", str(repo), "--dry-run")
    assert "1 done, 0 failed" in run("relay", str(repo), "--limit", "1")
    assert "0 done, 1 failed" in run("relay", str(repo), "--once", status=1)
    text = run("list", str(repo))
    assert "the decision is gone" in text
    assert text.endswith("1 pending\n")
