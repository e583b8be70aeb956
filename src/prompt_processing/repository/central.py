"""Opening the central Butler of a repository."""

from pathlib import Path
from typing import Final

from lsst.daf.butler import Butler
from lsst.resources import ResourcePath

from prompt_processing.config import Settings
from prompt_processing.domain.errors import RepositoryError

CONFIG: Final = "butler.yaml"
"""File that makes a folder a Butler repository."""


def open_central(repo: Path) -> Butler:
    """Open the central Butler of a repository for writing.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    require_repository(repo)
    return Butler.from_config(Settings.load(repo).repository.butler, writeable=True)


def require_repository(repo: Path) -> None:
    """Make sure that a folder is a repository.

    Raises
    ------
    RepositoryError
        If it is none.
    """
    if not ResourcePath(Settings.load(repo).repository.butler, forceDirectory=True).join(CONFIG).exists():
        raise RepositoryError(f"{repo}: there is no repository; make one with: prompt repo create {repo}")
