"""How long commands take to show one night of a large ledger.

A PostgreSQL and an SQLite ledger are filled with many nights of LATISS and one of LSSTCam, the newest.
`prompt status` is measured as a process with its memory, the other queries inside one process. ``--old`` also
reads the whole ledger, as commands did before. Each figure is the least of some repetitions.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, text

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools"))

from local_cloud.servers import Postgres, ServerMissingError
from local_cloud.visits import detector_visit
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database
from prompt_processing.views.nights import night_status

DAY = 86400.0
STAGES = ("preload", "wait", "isr", "alerts", "products")
STEPS = ("decision", "apdb", "alerts", "metrics", "products")
STATUS = "import sys; from prompt_processing.cli.app import main; main(['status', *sys.argv[1:]])"
COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < CAST(:total AS INTEGER)) "
FAILED = "(i - 50 * (i / 50) = 0)"


def fill_night(connection: Connection, first: int, total: int, visit: DetectorVisit) -> None:
    """Add the detector-visits of a night, copies of one; one of 50 has failed, the others are processed."""
    values = {
        "first": first, "total": total, "instrument": visit.instrument, "day": visit.day_obs,
        "body": visit.model_dump_json(), "night": visit.groupId, "time": visit.startTime,
    }  # fmt: skip

    def insert(table: str, columns: str, *values_of: str, where: str = "true") -> None:
        select = f"SELECT {', '.join(values_of)} FROM n WHERE {where}"  # noqa: S608 (constants)
        connection.execute(text(f"{COUNT}INSERT INTO {table} ({columns}) {select}"), values)

    key, time_of = "CAST(:first AS BIGINT) + i", "CAST(:time AS DOUBLE PRECISION)"
    group = "CAST(:night AS TEXT) || '/' || (i / 189)"
    status = f"CASE WHEN {FAILED} THEN 'failed' ELSE 'processed' END"
    reason = f"CASE WHEN {FAILED} THEN 'bad-raw' END"
    insert(
        "detector_visits",
        'id, instrument, "group", detector, message_id, body, first_claimed_at, attempt, freed_at, '
        "day_obs, visit_id, n_alerts, status, reason",
        *(key, "CAST(:instrument AS TEXT)", group, "i - 189 * (i / 189)", "'m'", "CAST(:body AS TEXT)"),
        *(time_of, "1", time_of, "CAST(:day AS INTEGER)", "i", f"CASE WHEN {FAILED} THEN NULL ELSE 100 END"),
        *(status, reason),
    )
    columns = 'instrument, "group", heard_of_at'
    first_of_visit = "i - 189 * (i / 189) = 0 OR i = 1"
    insert("visits", columns, "CAST(:instrument AS TEXT)", group, time_of, where=first_of_visit)
    columns = "detector_visit_id, attempt, owner, token, message_id, started_at, ended_at, latency"
    insert("attempts", columns, key, "1", "'w'", "'t'", "'m'", time_of, f"{time_of} + 60.0", "20.0")
    columns = "detector_visit_id, attempt, position, stage, seconds"
    for place, stage in enumerate(STAGES):
        insert("stage_times", columns, key, "1", str(place), f"'{stage}'", "4.0")
    columns = "detector_visit_id, step, attempt, completed_at"
    for step in STEPS:
        insert("steps", columns, key, f"'{step}'", "1", time_of, where=f"NOT {FAILED}")
    columns = "detector_visit_id, attempt, status, reason, detail, flags, recorded_at, current"
    insert("outcomes", columns, key, "1", status, reason, "''", "'[]'", time_of, "true")


def fill(url: str, options: argparse.Namespace) -> int:
    """Fill a new ledger; return the number of detector-visits."""
    engine = database.engine(url)
    SqlLedger(engine)
    base, total = detector_visit(), 0
    sizes = [("LATISS", options.per_night)] * options.nights + [("LSSTCam", options.big)]
    with database.writing(engine, "fill") as connection:
        for night, (instrument, size) in enumerate(sizes):
            changes = {"groupId": f"n{night}", "startTime": base.startTime + DAY * night}
            visit = base.model_copy(update={"instrument": instrument, **changes})
            fill_night(connection, total, size, visit)
            total += size
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("ANALYZE")
    return total


def least(repeat: int, work: Callable[[], object]) -> float:
    """Return the least time of some repetitions [s]."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def run_status(repo: Path) -> tuple[float, float, float]:
    """Run ``prompt status``; return its time, that of its processor [s] and its memory [MB]."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", STATUS, str(repo)], stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(child.pid, 0)
    if code:
        raise RuntimeError(f"prompt status ended with {code}")
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def measure(name: str, url: str, options: argparse.Namespace) -> None:
    """Fill a ledger and print its rows of the table."""
    total = fill(url, options)
    ledger = SqlLedger(database.engine(url))
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder)
        (repo / "butler").mkdir()
        for place in (repo, repo / "butler"):
            (place / "butler.yaml").touch()
        (repo / "prompt.yaml").write_text(f"repository: {{ledger: '{url}'}}\n")
        runs = [run_status(repo) for _ in range(options.repeat)]
    print(f"{name}: {total} detector-visits")
    wall, processor, memory = (min(figures) for figures in zip(*runs, strict=True))
    print(f"  prompt status, process    {wall:8.2f} s, {processor:.2f} s of a processor, {memory:.0f} MB")
    queries = least(options.repeat, lambda: night_status(ledger, None, 50))
    print(f"  status, queries           {queries:8.3f} s")
    print(f"  sweep, nothing to do      {least(options.repeat, ledger.stale) * 1000:8.1f} ms")
    if options.old:
        print(f"  whole ledger, the old way {least(1, ledger.detector_visits):8.1f} s")


def main() -> None:
    """Print the figures of each database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=200)
    parser.add_argument("--per-night", type=int, default=500)
    parser.add_argument("--big", type=int, default=189_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--old", action="store_true", help="Also read the whole ledger, as before.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", f"sqlite:///{folder}/ledger.sqlite3", options)
    try:
        server = Postgres()
    except ServerMissingError as error:
        print(f"PostgreSQL not measured: {error}")
        return
    with server:
        measure("PostgreSQL", server.new_database(), options)


if __name__ == "__main__":
    main()
