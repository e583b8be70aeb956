"""Memory of one engine over many small visits: it must not grow.

A night is simulated, all its images and messages are there at once, and one engine works on them.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from prompt_processing.cli.logs import configure
from prompt_processing.domain.clock import WallClock
from prompt_processing.factory import Factory
from prompt_processing.simulation.night import simulate_night
from support.fault_night import Night
from support.nights import prepare


def main() -> None:
    """Print the resident set after every tenth visit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=200)
    visits = parser.parse_args().visits
    os.environ["PROMPT_WORKER__RESTART_AFTER"] = str(10 * visits)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate_night(folder / "night", seed=4, visits=visits, size="small")
        world = Night(folder, prepare(folder / "prepared", folder / "night"), folder / "night")
        keys = world.send(n_visits=visits)
        supervisor = Factory(world.repo, WallClock()).supervisor("benchmark", 1, configure)
        with supervisor:
            done = 0
            while done < len(keys):
                time.sleep(0.5)
                finished = sum(world.ledger.counts().values()) - world.ledger.counts().get("queued", 0)
                if finished // 10 > done // 10:
                    memory = psutil.Process(supervisor.engines[0].pid).memory_info().rss
                    print(f"{finished:>4} visits: {memory / 1e6:.0f} MB", flush=True)
                done = finished
        print(world.ledger.counts())


if __name__ == "__main__":
    main()
