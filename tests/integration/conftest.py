"""A small simulated night and a repository prepared for it, made once for all tests."""

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
