"""Opening the central Butler of a repository."""

from pathlib import Path

from lsst.daf.butler import Butler

from prompt_processing.config import Settings
from prompt_processing.domain.errors import RepositoryError


def open_central(repo: Path) -> Butler:
    """Open the central Butler of a repository for writing.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    root = Settings.load(repo).repository.butler
    try:
        return Butler.from_config(root, writeable=True)
    except FileNotFoundError as error:
        raise RepositoryError(
            f"{repo}: there is no repository; make one with: prompt repo create {repo}"
        ) from error
