"""How long a new engine takes, forked from a warm process and from a fresh interpreter, and what it holds.

Give a repository that can process something, for example ``demo/repo``.
"""

import argparse
import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from prompt_processing.cli.logs import configure
from prompt_processing.factory.worker import engine_runner
from prompt_processing.runtime.fork_server import preload
from prompt_processing.worker.engine import EngineProcess

FRESH = """
import sys, time
from pathlib import Path
start = time.monotonic()
import prompt_processing.factory.engine_imports
imported = time.monotonic()
from prompt_processing.domain.clock import WallClock
from prompt_processing.factory.worker import Factory
from prompt_processing.messaging.memory import MemoryHints
factory = Factory(Path(sys.argv[1]), WallClock())
opened = time.monotonic()
factory.processor(MemoryHints())
print(imported - start, opened - imported, time.monotonic() - opened)
"""


def fresh(repo: Path) -> dict[str, float]:
    """Return the parts of the time that a fresh interpreter takes until it can work [s]."""
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", FRESH, repo], capture_output=True, text=True, check=True)
    whole = time.monotonic() - start
    imports, stores, process = map(float, done.stdout.split())
    return {
        "interpreter and exit": whole - imports - stores - process,
        "imports": imports,
        "Butler and ledger": stores,
        "APDB and process": process,
        "whole": whole,
    }


def forget_files() -> None:
    """Take the packages out of the file cache, as if the machine had just started."""
    for folder in {sys.prefix, sys.base_prefix, str(Path(__file__).parents[1] / "src")}:
        for path in Path(folder).rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(handle)


def forked(build: functools.partial, number: int) -> tuple[list[float], EngineProcess]:
    """Return the times of new engines until they can work [s], and the last of them."""
    times = []
    for index in range(number):
        start = time.monotonic()
        engine = EngineProcess(build)
        assert engine.is_ready(120.0)
        times.append(time.monotonic() - start)
        if index < number - 1:
            engine.end()
    return times, engine


def main() -> None:
    """Print the times and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repo", type=Path, nargs="?", default=Path("demo/repo"))
    repo = parser.parse_args().repo.resolve()
    preload("prompt_processing.factory.engine_imports")
    times, last = forked(functools.partial(engine_runner, repo, configure), 11)
    engine = psutil.Process(last.pid)
    print(f"first engine, with the process that it is forked from: {times[0]:.2f} s")
    print(f"each further engine: median {np.median(times[1:]):.2f} s, at most {max(times[1:]):.2f} s")
    parent = engine.parent()
    assert parent is not None
    for name, process in (("process that engines are forked from", parent), ("waiting engine", engine)):
        memory = process.memory_full_info()
        print(
            f"{name}: {memory.rss / 1e6:.0f} MB resident, {memory.uss / 1e6:.0f} MB of its own, "
            f"{process.num_threads()} threads"
        )
    last.end()
    for name, prepare in (("warm", lambda: None), ("cold", forget_files)):
        prepare()
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in fresh(repo).items())
        print(f"fresh interpreter, {name} file cache [s]: {parts}")


if __name__ == "__main__":
    main()
