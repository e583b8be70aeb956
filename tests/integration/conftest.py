"""A small simulated night and a repository prepared for it, made once for all tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prompt_processing.simulation.night import simulate_night
from support.nights import copy_repository, play, prepare


@pytest.fixture(scope="session")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights") / "small"
    simulate_night(folder, seed=1, visits=2, size="small")
    return folder


@pytest.fixture(scope="session")
def small_night(tmp_path_factory):
    """A night with a visit for each thing that may happen."""
    folder = tmp_path_factory.mktemp("nights") / "many"
    simulate_night(folder, seed=6, visits=12, size="small")
    return folder


@pytest.fixture(scope="session")
def prepared(night, tmp_path_factory):
    """A repository with calibs, refcat and templates; not to be changed."""
    return prepare(tmp_path_factory.mktemp("repos") / "prepared", night)


@pytest.fixture(scope="session")
def played(night, prepared, tmp_path_factory):
    """A repository that the night was played into, and what became of its visits; not to be changed."""
    repo = copy_repository(prepared, tmp_path_factory.mktemp("repos") / "played")
    visits, problems = play(repo, night)
    assert problems == []
    return repo, visits


@pytest.fixture
def repo(prepared, tmp_path):
    """A copy of the prepared repository that a test may change."""
    return copy_repository(prepared, tmp_path / "repo")


@pytest.fixture
def observatory(kafka, registry):
    from local_cloud.bridge_world import Observatory

    return Observatory.on(kafka, registry)


@pytest.fixture
def command(bridge_settings):
    """Runs a command with settings from the environment alone, and returns what it prints."""

    def run(*arguments, code=0, **changes):
        program = Path(sys.executable).with_name("prompt")
        done = subprocess.run(
            [program, "bridge", *map(str, arguments)],
            env={**os.environ, **bridge_settings(**changes)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
