"""How many claims and step records a ledger takes in a second.

Each of some clients, a process with a connection of its own, claims detector-visits and records their steps
and outcomes. SQLite and PostgreSQL are measured in one run; without a PostgreSQL server only SQLite is.
"""

import argparse
import itertools
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools"))

from local_cloud.servers import Postgres, ServerMissingError
from local_cloud.visits import detector_visit
from prompt_processing.domain.outcome import Delivery, Outcome
from prompt_processing.ledger.sql import SqlLedger
from prompt_processing.storage import database
from prompt_processing.worker.effects import STEPS


def work(url: str, client: int, begin: float, end: float) -> int:
    """Work in a time on the clock; return how many claims and step records were made."""
    ledger = SqlLedger(database.engine(url))
    done = 0
    time.sleep(max(begin - time.monotonic(), 0.0))
    for number in itertools.count():
        if time.monotonic() > end:
            return done
        visit = detector_visit(groupId=f"{client}/{number}")
        claim = ledger.claim(visit, Delivery(f"{client}/{number}", "{}"), owner=f"client {client}")
        done += 1
        for step in STEPS:
            ledger.check(claim)
            ledger.record_step(claim, step)
            done += 1
        ledger.record_outcome(claim, Outcome.processed())
    return done


def measure(url: str, clients: int, seconds: float) -> float:
    """Return claims and step records per second."""
    SqlLedger(database.engine(url))
    begin = time.monotonic() + 0.2 * clients + 1.0  # when all have started
    with ProcessPoolExecutor(clients, multiprocessing.get_context("fork")) as pool:
        jobs = [pool.submit(work, url, client, begin, begin + seconds) for client in range(clients)]
        return sum(job.result() for job in jobs) / seconds


def main() -> None:
    """Print one row for each database and number of clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 50])
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for clients in options.clients:
            rate = measure(f"sqlite:///{folder}/{clients}.sqlite3", clients, options.seconds)
            print(f"SQLite      {clients:>3} clients: {rate:6.0f} claims and steps per second")
    try:
        server = Postgres()
    except ServerMissingError as error:
        print(f"PostgreSQL  not measured: {error}")
        return
    with server:
        for clients in options.clients:
            rate = measure(server.new_database(), clients, options.seconds)
            print(f"PostgreSQL  {clients:>3} clients: {rate:6.0f} claims and steps per second")


if __name__ == "__main__":
    main()
