"""The truth of a simulated night, in the form that alerts are compared with."""

from dataclasses import dataclass
from pathlib import Path

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.simulation.truth import read_events, read_exposures, truth_folders
from prompt_processing.views.assess import TrueEvent


@dataclass(frozen=True, slots=True)
class Truth:
    """What really changed during a night."""

    events: tuple[TrueEvent, ...]
    pixel_scale: float
    """[arcsec/pixel]"""


def read_truth(night: Path) -> Truth | None:
    """Return the truth of a night, None if it has none.

    Parameters
    ----------
    night
        Folder of the night.

    Raises
    ------
    RepositoryError
        If there is a truth that cannot be read.
    """
    folder = night / "truth"
    if not folder.is_dir():
        return None
    try:
        tables = {part: read_exposures(part) for part in truth_folders(night)}
        events = [
            TrueEvent(
                group=str(exposure["group"]),
                kind=str(row["kind"]),
                ra=float(row["ra"]),
                dec=float(row["dec"]),
                snr=float(row["snr"]),
                flux=float(row["flux"]),
            )
            for part, exposures in tables.items()
            for exposure in exposures[exposures["kind"] == "science"]
            for row in read_events(part, str(exposure["obs_id"]))
        ]
        scale = max(float(exposures["pixel_scale"][0]) for exposures in tables.values())
    except (OSError, KeyError, ValueError) as error:
        raise RepositoryError(f"{folder}: the truth cannot be read: {error}") from error
    return Truth(tuple(events), scale)
