"""Looking at visits and taking them up again, on a ledger and a queue in files."""

import json

import pytest
from click.testing import CliRunner

from local_cloud.visits import detector_visit
from prompt_processing.cli import main
from prompt_processing.config import Settings
from prompt_processing.domain.errors import StoreError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
from prompt_processing.domain.visit import parse_message
from prompt_processing.factory.create import create_repository
from prompt_processing.factory.stores import Stores
from prompt_processing.storage import database
from support.first_ledger import METADATA

GROUP = "2026-03-15T01:00:00.000"


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    repo = tmp_path_factory.mktemp("repos") / "empty"
    create_repository(repo)
    return repo


@pytest.fixture
def repo(empty):
    for name in ("ledger", "queue"):
        for file in empty.glob(f"{name}.sqlite3*"):
            file.unlink()
    return empty


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr


def claim(repo, owner="host/1/0", **options):
    visit, ledger = detector_visit(), Stores.open(repo).ledger
    return ledger.claim(visit, Delivery("m", visit.model_dump_json()), owner=owner, **options)


def end(repo, outcome):
    Stores.open(repo).ledger.record_outcome(claim(repo), outcome)


def queued(repo):
    queue = Stores.open(repo).publisher
    found = []
    while (received := queue.receive(0.0)) is not None:
        found.append(parse_message(received.delivery.body).key)
        queue.ack(received)
    return found


def state(repo):
    return str(Stores.open(repo).ledger.find(detector_visit().key).outcome)


def test_show_tells_the_attempts_with_their_errors_and_times(repo):
    ledger, first = Stores.open(repo).ledger, claim(repo)
    ledger.release(first, StoreError("APDB is away"), StageTimes({"preload": 1.25}))
    second = claim(repo)
    ledger.record_step(second, "decision")
    output = run("visits", "show", repo, GROUP)
    assert "in work at host/1/0" in output
    assert "steps      decision" in output
    assert "store: APDB is away, by host/1/0 (preload 1.2)" in output
    assert "attempt 2" in output
    shown = json.loads(run("visits", "show", repo, GROUP, "--json"))
    assert [attempt["error"] for attempt in shown[0]["attempts"]] == ["store: APDB is away", None]
    assert shown[0]["visit"]["groupId"] == GROUP


def test_a_visit_that_was_skipped_is_queued_again_and_its_outcome_kept(repo):
    end(repo, Outcome.skipped("no-template", "none at ra 10"))
    assert "would be queued again" in run("visits", "retry", repo, GROUP, "--dry-run")
    assert (state(repo), queued(repo)) == ("skipped:no-template", [])
    assert "is queued again, was skipped:no-template" in run("visits", "retry", repo, GROUP)
    assert (state(repo), queued(repo)) == ("None", [detector_visit().key])
    assert "reopened   skipped:no-template" in run("visits", "show", repo, GROUP)


def test_a_processed_visit_is_not_processed_again(repo):
    end(repo, Outcome.processed())
    assert "what was decided stands" in run("visits", "retry", repo, GROUP, code=1)
    assert "what was decided stands" in run("visits", "retry", repo, GROUP, "--dry-run", code=1)
    assert "has an outcome already: processed" in run("visits", "fail", repo, GROUP, "--why", "x", code=1)
    assert (state(repo), queued(repo)) == ("processed", [])


def test_a_visit_is_given_up_when_nobody_works_on_it(repo):
    claim(repo)
    for command in (("retry",), ("fail", "--why", "hangs"), ("fail", "--why", "hangs", "--dry-run")):
        error = run("visits", command[0], repo, GROUP, *command[1:], code=1)
        assert f"{GROUP} LATISS detector 0 is being worked on by host/1/0" in error
    Stores.open(repo).ledger.release(claim(repo), StoreError("away"), StageTimes())
    run("visits", "fail", repo, GROUP, "--why", "hangs", "--dry-run")
    assert state(repo) == "None"
    assert "is given up, was queued" in run("visits", "fail", repo, GROUP, "--why", "hangs")
    assert state(repo) == "failed:given-up"
    assert "by the operator: hangs" in run("visits", "show", repo, GROUP)


def test_a_sweep_queues_what_nobody_works_on(repo):
    claim(repo, lease=0.001)
    assert "0 queued again" in run("visits", "sweep", repo)
    assert "1 would be queued again" in run("visits", "sweep", repo, "--older-than", "0", "--dry-run")
    assert queued(repo) == []
    assert run("visits", "sweep", repo, "--older-than", "0").splitlines()[0] == f"{GROUP} LATISS detector 0"
    assert queued(repo) == [detector_visit().key]


def test_a_visit_that_nobody_knows_is_an_error(repo):
    assert "no worker has ever heard" in run("visits", "show", repo, "nothing", code=1)
    claim(repo)
    assert "detector 3" in run("visits", "show", repo, GROUP, "--detector", "3", code=1)


def test_a_folder_that_is_no_repository_stays_as_it_is(tmp_path):
    assert "prompt repo create" in run("visits", "sweep", tmp_path, code=1)
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_an_older_program_is_upgraded(repo):
    METADATA.create_all(database.engine(Settings.load(repo).repository.ledger_url))
    assert "prompt repo upgrade" in run("visits", "sweep", repo, code=1)
    assert run("repo", "upgrade", repo) == "ledger: version 0004, was 0001\n"
    assert run("repo", "upgrade", repo) == "ledger: version 0004\n"
    assert "0 queued again" in run("visits", "sweep", repo)
