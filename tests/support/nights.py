"""Nights and repositories for tests that need the whole system."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from prompt_processing.cli.logs import configure
from prompt_processing.config import Settings
from prompt_processing.delivery.decision import Decision
from prompt_processing.delivery.decisions import DecisionStore
from prompt_processing.factory.prepare import prepare_repository
from prompt_processing.factory.run import play_night
from prompt_processing.night.at_speed import PlayedVisit
from prompt_processing.storage.object_store import root


def silent(stage: str, done: int, total: int) -> None:
    """Take progress without showing it."""


def prepare(repo: Path, night: Path) -> Path:
    """Make a repository that can process a night."""
    prepare_repository(repo, night, progress=silent)
    return repo


def copy_repository(repo: Path, target: Path) -> Path:
    """Copy a repository that nothing has been played into."""
    shutil.copytree(repo, target)
    return target


def play(repo: Path, night: Path) -> tuple[list[PlayedVisit], list[str]]:
    """Play a night; return what became of each visit, and what could not be played."""
    visits: list[PlayedVisit] = []
    problems: list[str] = []
    play_night(
        repo,
        night,
        set_up_logging=configure,
        progress=silent,
        on_visit=visits.append,
        on_error=problems.append,
    )
    return visits, problems


def decisions(repo: Path) -> list[Decision]:
    """Return the decisions of a repository."""
    return list(DecisionStore(root(Settings.load(repo).repository.decisions)).all())


def contents(folder: Path) -> dict[str, str]:
    """Return a fingerprint of every file below a folder, but not of databases, which have their own tests."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _files(folder)
    }


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".sqlite3" not in path.name and path.name != "player.lock":
            yield path
