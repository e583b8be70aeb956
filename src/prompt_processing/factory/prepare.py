"""A repository that can process a night, from the folder of the night."""

from collections.abc import Callable
from pathlib import Path

import yaml

from prompt_processing.config import FILE_NAME, Settings
from prompt_processing.factory.create import create_repository
from prompt_processing.instruments.cameras import get_camera
from prompt_processing.repository.calibs import build_calibs
from prompt_processing.repository.raws import describe_raws
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

    Notes
    -----
    If the night has calibs of some detectors of a camera only, the settings of the repository get these as
    ``instruments.detectors``, unless it is set already: the others could not be processed.
    """
    create_repository(repo)
    _limit_detectors(repo, night)
    build_calibs(repo, night, progress=progress)
    ingest_refcat(repo, night / "refcat.ecsv", progress=progress)
    build_templates(repo, night, progress=progress)


def _limit_detectors(repo: Path, night: Path) -> None:
    """Write down which detectors can be processed, where these are not all."""
    if Settings.load(repo).instruments.detectors:
        return
    found: dict[str, set[int]] = {}
    for frame in describe_raws(night / "calib"):
        found.setdefault(frame.info["instrument"], set()).add(frame.info["detector"])
    limited = {
        name: sorted(numbers) for name, numbers in found.items() if numbers != set(get_camera(name).detectors)
    }
    if limited:
        text = yaml.safe_dump({"instruments": {"detectors": limited}}, default_flow_style=None)
        with (repo / FILE_NAME).open("a", encoding="utf-8") as stream:
            stream.write(f"\n# There are calibs of these detectors only.\n{text}")
