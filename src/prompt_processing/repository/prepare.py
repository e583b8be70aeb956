"""A repository that can process a night, from the folder of the night."""

from collections.abc import Callable
from pathlib import Path

from prompt_processing.repository.calibs import build_calibs
from prompt_processing.repository.create import create_repository
from prompt_processing.repository.refcat import ingest_refcat
from prompt_processing.repository.templates import build_templates


def prepare_repository(repo: Path, night: Path, *, progress: Callable[[str, int, int], None]) -> None:
    """Make a repository with the calibs, the reference catalogue and the templates of a night.

    What was made before is not made again, so an interrupted preparation can be continued.

    Parameters
    ----------
    repo
        Folder of the repository; made if needed.
    night
        Folder of the night.
    progress
        Called with the stage, the steps that are done and their number.

    Raises
    ------
    RepositoryError
        If something that is needed is not in the night; the message says what.
    """
    create_repository(repo)
    build_calibs(repo, night, progress=progress)
    ingest_refcat(repo, night / "refcat.ecsv", progress=progress)
    build_templates(repo, night, progress=progress)
