"""Opening the central Butler of a repository."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from lsst.resources import ResourcePath

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
    from lsst.daf.butler import Butler  # noqa: PLC0415 (slow, and who only asks whether it is there needs none)

    require_repository(repo)
    return Butler.from_config(Settings.load(repo).repository.butler, writeable=writeable)


def require_repository(repo: Path) -> None:
    """Make sure that a folder is a repository.

    Raises
    ------
    RepositoryError
        If it is none.
    """
    if not ResourcePath(Settings.load(repo).repository.butler, forceDirectory=True).join(CONFIG).exists():
        raise RepositoryError(f"{repo}: there is no repository; make one with: prompt repo create {repo}")
