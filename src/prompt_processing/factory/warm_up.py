"""What can be done once per installation, so that no worker has to: for the building of an image.

Python code is compiled, and a small simulated visit is processed in a temporary folder, which leaves the
compiled form of every numerical function beside the code (numba's cache).
"""

import compileall
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import prompt_processing
from prompt_processing.domain.errors import InternalError
from prompt_processing.domain.outcome import Status
from prompt_processing.factory.prepare import prepare_repository
from prompt_processing.factory.run import play_night
from prompt_processing.night.at_speed import PlayedVisit
from prompt_processing.simulation.night import simulate_night


def warm_up(*, set_up_logging: Callable[[], None], progress: Callable[[str, int, int], None]) -> None:
    """Compile all that a worker would compile; what is compiled already is not compiled again.

    Parameters
    ----------
    set_up_logging
        Sets up logging inside an engine.
    progress
        Called with the stage, the steps that are done and their number.

    Raises
    ------
    InternalError
        If the visit is not processed.
    """
    folders = (sysconfig.get_path("purelib"), str(Path(prompt_processing.__file__).parent))
    for number, folder in enumerate(folders):
        progress("Python code", number, len(folders))
        # Some packages hold files for other versions of Python, which do not compile: that is no fault.
        compileall.compile_dir(folder, quiet=2, workers=0)
    progress("Python code", len(folders), len(folders))
    visits: list[PlayedVisit] = []
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        night, repo = Path(name, "night"), Path(name, "repo")
        progress("simulation", 0, 1)
        simulate_night(night, seed=1, visits=1, size="small")
        progress("simulation", 1, 1)
        prepare_repository(repo, night, progress=progress)
        play_night(
            repo,
            night,
            set_up_logging=set_up_logging,
            progress=progress,
            on_visit=visits.append,
            on_error=problems.append,
        )
    outcomes = [visit.outcome for visit in visits]
    if [outcome and outcome.status for outcome in outcomes] != [Status.PROCESSED]:
        raise InternalError(
            f"the trial visit was not processed: {', '.join(map(str, [*outcomes, *problems]))}"
        )
