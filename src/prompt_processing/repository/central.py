"""Opening the central Butler of a repository."""

# Commands that only look for a repository must not wait for the LSST middleware.
# ruff: noqa: PLC0415

from pathlib import Path
from typing import TYPE_CHECKING, Final

from prompt_processing.config import Settings
from prompt_processing.domain.errors import RepositoryError

if TYPE_CHECKING:
    from lsst.daf.butler import Butler

CONFIG: Final = "butler.yaml"
"""File that makes a folder a Butler repository."""


def open_central(repo: Path, *, writeable: bool = True) -> "Butler":
    """Open the central Butler of a repository.

    Parameters
    ----------
    repo
        Folder of the repository.
    writeable
        Whether something is to be stored in it.

    Returns
    -------
    butler
        The Butler.

    Raises
    ------
    RepositoryError
        If there is no repository.
    """
    from lsst.daf.butler import Butler

    require_repository(repo)
    return Butler.from_config(Settings.load(repo).repository.butler, writeable=writeable)


def require_repository(repo: Path) -> None:
    """Make sure that a folder is a repository.

    Raises
    ------
    RepositoryError
        If it is none.
    """
    if not _exists(Settings.load(repo).repository.butler):
        raise RepositoryError(f"{repo}: there is no repository; make one with: prompt repo create {repo}")


def _exists(butler: str) -> bool:
    if "://" not in butler:
        return (Path(butler) / CONFIG).exists()
    from lsst.resources import ResourcePath

    return ResourcePath(butler, forceDirectory=True).join(CONFIG).exists()
