"""Ledgers of earlier versions, and ledgers that several processes make at the same time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import prompt_processing.ledger
from local_cloud.visits import detector_visit
from prompt_processing.domain.errors import RepositoryError
from prompt_processing.domain.outcome import Delivery, Outcome, StageTimes
from prompt_processing.ledger import schema
from prompt_processing.ledger.port import Claim, Done, NightSummary
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.ledger.tables import METADATA
from prompt_processing.storage import database
from support import first_ledger

DONE, RELEASED, CRASHED = (detector_visit(groupId=group) for group in ("done", "released", "crashed"))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.sqlite3"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def engine(url):
    engine = database.engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def old(engine):
    """A ledger of the first version: one visit is done, one was given back and one crashed."""
    with database.writing(engine, "make") as connection:
        first_ledger.METADATA.create_all(connection)
        for number, visit in enumerate((DONE, RELEASED, CRASHED), 1):
            claim = {"token": "t", "owner": "w", "message_id": "m"}
            standing = {"token": "t", "owner": "w", "claim_message_id": "m", "lease_until": 1010.0}
            connection.execute(
                first_ledger.DETECTOR_VISITS.insert().values(
                    **visit.key._asdict(),
                    message_id=f"m-{number}",
                    body=visit.model_dump_json(),
                    first_claimed_at=1000.0,
                    attempt=1,
                    **(standing if visit is CRASHED else {}),
                )
            )
            connection.execute(
                first_ledger.ATTEMPTS.insert().values(
                    detector_visit_id=number,
                    attempt=1,
                    **claim,
                    started_at=1000.0,
                    ended_at=None if visit is CRASHED else 1005.0,
                    latency=3.5,
                )
            )
        times = {"detector_visit_id": 1, "attempt": 1, "position": 0, "stage": "isr", "seconds": 2.0}
        connection.execute(first_ledger.STAGE_TIMES.insert().values(**times))
        connection.execute(
            first_ledger.OUTCOMES.insert().values(
                detector_visit_id=1,
                attempt=1,
                status="processed",
                detail="",
                flags='["late"]',
                recorded_at=1005.0,
                current=True,
            )
        )
    return engine


def difference(engine):
    """Return how the tables differ from those that the program expects."""
    with database.reading(engine, "compare") as connection:
        options = {"version_table": schema.VERSION_TABLE}
        return compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)


def test_there_is_a_script_for_each_version():
    folder = f"{prompt_processing.ledger.__path__[0]}/migrations"
    scripts = ScriptDirectory(folder)
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(schema.VERSIONS)


def test_an_empty_database_gets_the_tables_of_this_program(engine):
    assert schema.version(engine) is None
    with pytest.raises(RepositoryError, match="prompt repo upgrade REPO"):
        schema.check(engine)
    SqlLedger(engine)
    assert schema.version(engine) == schema.VERSIONS[-1]
    assert difference(engine) == []


def test_an_older_ledger_is_refused_until_it_is_upgraded(old):
    with pytest.raises(RepositoryError, match=r"version 0001.* prompt repo upgrade REPO"):
        SqlLedger(old)
    assert schema.upgrade(old) == "0001"
    assert difference(old) == []
    assert schema.upgrade(old) == schema.VERSIONS[-1]


def test_nothing_is_lost_by_an_upgrade(old):
    schema.upgrade(old)
    ledger = SqlLedger(old)
    assert ledger.claim(DONE, Delivery("m", "{}"), owner="w-2") == Done(Outcome.processed("late"), 1)
    record = ledger.find(DONE.key)
    assert (record.visit, record.message_id, record.decision) == (DONE, "m-1", None)
    assert ledger.newest_night() == DONE.day_obs
    assert len(ledger.night(DONE.day_obs, limit=10).records) == 3
    assert ledger.summary(DONE.day_obs) == NightSummary({"processed": 1, "queued": 2}, 0, unknown=1)
    assert record.times == StageTimes({"isr": 2.0}, latency=3.5)
    assert [item.visit.groupId for item in ledger.stale(older_than=3600.0)] == ["released", "crashed"]
    crashes = {}
    for visit in (RELEASED, CRASHED):
        claim = ledger.claim(visit, Delivery("m", "{}"), owner=visit.groupId)
        assert isinstance(claim, Claim)
        crashes[visit.groupId] = (claim.attempt, claim.crashes)
    assert crashes == {"released": (2, 0), "crashed": (2, 1)}


def test_visits_of_an_older_ledger_can_have_pending_effects(old):
    schema.upgrade(old)
    ledger = SqlLedger(old)
    assert (ledger.pending(), ledger.find(DONE.key).pending) == ([], ())
    claim = ledger.claim(RELEASED, Delivery("m", "{}"), owner="w")
    ledger.record_pending(claim, "alerts", error="away")
    (pending,) = ledger.pending()
    ledger.settle(pending, latency=9.0)
    record = ledger.find(RELEASED.key)
    # The attempt of the older program keeps its latency.
    assert [attempt.times.latency for attempt in record.attempts] == [3.5, 9.0]
    assert record.steps == ("alerts",)


def test_a_newer_ledger_is_refused(engine):
    SqlLedger(engine)
    with database.writing(engine, "change") as connection:
        connection.execute(text("UPDATE ledger_version SET version_num = '9999'"))
    for use in (SqlLedger, schema.upgrade):
        with pytest.raises(RepositoryError, match="version 9999, newer than this program"):
            use(engine)
    assert schema.version(engine) == "9999"


@pytest.mark.parametrize("prepare", [SqlLedger, schema.upgrade], ids=["use", "upgrade"])
def test_several_can_make_a_ledger_at_the_same_time(url, prepare):
    engines = [database.engine(url) for _ in range(6)]
    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(prepare, engines))
    assert difference(engines[0]) == []
    for engine in engines:
        engine.dispose()


def test_several_can_upgrade_a_ledger_at_the_same_time(old, url):
    engines = [database.engine(url) for _ in range(4)]
    with ThreadPoolExecutor(len(engines)) as pool:
        before = sorted(pool.map(schema.upgrade, engines))
    assert before == ["0001", *[schema.VERSIONS[-1]] * 3]
    assert len(SqlLedger(old).detector_visits()) == 3
    for engine in engines:
        engine.dispose()
