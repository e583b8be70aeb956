"""What the central Butler holds for a visit, one dataset type of a pipeline at a time.

Which dataset types these are follows from the pipeline; how one is looked for follows from what it is:

========================  ==================================================================
a calibration             valid while the shutter is open, for the filter if it has one
with a sky pixel (htm7)   every pixel that the field touches
with tracts and patches   every patch that the field touches, in the band of the visit
anything else             the first one in the collections of the instrument's inputs
========================  ==================================================================
"""

from dataclasses import dataclass
from typing import Any

from lsst.daf.butler import Butler, DatasetRef, DatasetType, MissingDatasetTypeError, Timespan
from lsst.sphgeom import Region
from sqlalchemy.exc import SQLAlchemyError

from prompt_processing.domain import collections
from prompt_processing.domain.errors import StoreError
from prompt_processing.instruments.cameras import band_of
from prompt_processing.instruments.skymap import SKYMAP


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of a visit before its image."""

    instrument: str
    detector: int
    physical_filter: str | None
    """`None` if the event leaves it open: then there may be datasets for several filters."""
    moment: Timespan
    """While the shutter is open."""
    region: Region
    """The field, with its margin."""


def find_inputs(butler: Butler, dataset_type: DatasetType, situation: Situation) -> list[DatasetRef]:
    """Return the datasets of a type that a visit needs.

    Parameters
    ----------
    butler
        Central Butler.
    dataset_type
        The dataset type.
    situation
        What is known of the visit.

    Raises
    ------
    StoreError
        If the central Butler does not answer.
    """
    try:
        return _find(butler, dataset_type, situation)
    except MissingDatasetTypeError:
        return []  # no dataset of this type was stored yet
    except (OSError, SQLAlchemyError) as error:
        raise StoreError(f"central Butler: {dataset_type.name}: {error}") from error


def _find(butler: Butler, dataset_type: DatasetType, situation: Situation) -> list[DatasetRef]:
    dimensions = dataset_type.dimensions
    where, bind = _conditions(dataset_type, situation)
    if dataset_type.isCalibration():
        where.append(f"{dataset_type.name}.timespan OVERLAPS moment")
        bind["moment"] = situation.moment
        places: Any = collections.calibs(situation.instrument)
    elif dimensions.skypix:
        (pixels,) = dimensions.skypix
        ranges = butler.dimensions.skypix_dimensions[pixels].pixelization.envelope(situation.region)
        where.append(f"{pixels} IN (touched)")
        bind["touched"] = [index for begin, end in ranges for index in range(begin, end)]
        places = collections.inputs(situation.instrument)
    else:
        if "tract" in dimensions:
            where.append(f"{'patch' if 'patch' in dimensions else 'tract'}.region OVERLAPS field")
            bind["field"] = situation.region
        places = collections.inputs(situation.instrument)
    return butler.query_datasets(
        dataset_type.name,
        collections=places,
        # Of several calibs none is the first; of what is left the one in the first collection counts.
        find_first=not dataset_type.isCalibration(),
        where=" AND ".join(where),
        bind=bind,
        explain=False,
        limit=None,
    )


def _conditions(dataset_type: DatasetType, situation: Situation) -> tuple[list[str], dict[str, Any]]:
    """Return what the values of a visit's dimensions say about a dataset type."""
    values: dict[str, Any] = {
        "instrument": situation.instrument,
        "detector": situation.detector,
        "skymap": SKYMAP.name,
    }
    if situation.physical_filter is not None:
        values |= {
            "physical_filter": situation.physical_filter,
            "band": band_of(situation.instrument, situation.physical_filter),
        }
    present = {name: value for name, value in values.items() if name in dataset_type.dimensions.required}
    return [f"{name} = visit_{name}" for name in present], {
        f"visit_{name}": value for name, value in present.items()
    }
