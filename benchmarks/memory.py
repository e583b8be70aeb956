"""Memory of one engine over many small visits: it must not grow.

A night of ten visits is repeated under new exposure numbers and later times; all images and messages are
there at once, and one engine works on them.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil
from astropy.io import fits

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("tests", "tools"))

from prompt_processing.cli.logs import configure
from prompt_processing.domain.clock import WallClock
from prompt_processing.factory.worker import Factory
from prompt_processing.simulation.night import simulate_night
from support.fault_night import Night
from support.nights import prepare

ROUND = 600.0
"""Time between two repetitions [s]."""


def repeat(night: Path, target: Path, rounds: int) -> None:
    """Write a night that consists of repetitions of another one."""
    lines = [json.loads(line) for line in (night / "events.jsonl").read_text().splitlines()]
    events = []
    for number in range(rounds):
        for raw in (night / "raw").rglob("*.fits*"):
            repeat_raw(raw, target / raw.parents[1].relative_to(night), number)
        for event in lines:
            times = {
                name: event[name] + ROUND * number
                for name in ("startTime", "private_sndStamp", "private_efdStamp")
            }
            events.append(json.dumps({**event, **times, "groupId": f"{event['groupId']}-{number}"}))
    (target / "events.jsonl").write_text("\n".join(events))


def repeat_raw(raw: Path, folder: Path, number: int) -> None:
    """Write a raw under another exposure number, at a later time and in another group."""
    old = raw.name.partition("_R")[0]
    sequence = int(old[-6:]) + 1000 * (number + 1)
    obs_id = f"{old[:-6]}{sequence:06d}"
    target = folder / obs_id / raw.name.replace(old, obs_id)
    target.parent.mkdir(parents=True)
    with fits.open(raw) as hdus:
        header = hdus[0].header
        group = f"{header['GROUPID']}-{number}"
        header.update({"OBSID": obs_id, "SEQNUM": sequence, "GROUPID": group})
        for name in ("MJD-BEG", "MJD-END"):
            header[name] += ROUND * number / 86400
        for name in ("DATE-BEG", "DATE-END"):
            header.remove(name, ignore_missing=True)
        hdus.writeto(target)
    target.with_name(f"{target.name.partition('.')[0]}.json").write_text(json.dumps({"GROUPID": group}))


def main() -> None:
    """Print the resident set after every tenth visit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=200)
    visits = parser.parse_args().visits
    os.environ["PROMPT_WORKER__RESTART_AFTER"] = str(10 * visits)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate_night(folder / "night", seed=4, visits=10, size="small")
        repo = prepare(folder / "prepared", folder / "night")
        repeat(folder / "night", folder / "many", visits // 10)
        world = Night(folder, repo, folder / "many")
        keys = world.send(n_visits=visits)
        supervisor = Factory(world.repo, WallClock()).supervisor("benchmark", 1, configure)
        with supervisor:
            done = 0
            while done < len(keys):
                time.sleep(0.5)
                finished = sum(world.ledger.counts().values()) - world.ledger.counts().get("queued", 0)
                if finished // 10 > done // 10:
                    memory = psutil.Process(supervisor.engines[0].pid).memory_full_info()
                    print(
                        f"{finished:>4} visits: {memory.rss / 1e6:.0f} MB resident, "
                        f"{memory.uss / 1e6:.0f} MB of its own",
                        flush=True,
                    )
                done = finished
        print(world.ledger.counts())


if __name__ == "__main__":
    main()
