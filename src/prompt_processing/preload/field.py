"""What the central Butler holds for a field: calibs, reference catalogue and templates."""

from dataclasses import dataclass
from typing import Final

from lsst.daf.butler import Butler, CollectionType, DatasetRef, Timespan
from lsst.sphgeom import ConvexPolygon, HtmPixelization

from prompt_processing.domain import collections
from prompt_processing.instruments.latiss import band_of
from prompt_processing.instruments.skymap import SKYMAP
from prompt_processing.instruments.storage import DATASET_TYPES

CALIB_TYPES: Final = tuple(name for name, kind in DATASET_TYPES.items() if kind.is_calibration)
_HTM: Final = HtmPixelization(7)


@dataclass(frozen=True, slots=True)
class Field:
    """Datasets of the central Butler that a visit needs."""

    calibs: list[tuple[DatasetRef, Timespan]]
    """Calibs that are valid at the time of the visit, with their validity."""
    refcat: list[DatasetRef]
    """Shards of the reference catalogue."""
    templates: list[DatasetRef]
    """Template patches in every band that the visit may use."""

    @property
    def refs(self) -> list[DatasetRef]:
        """All of them."""
        return [ref for ref, _ in self.calibs] + self.refcat + self.templates

    @property
    def dataset_types(self) -> set[str]:
        """Names of the dataset types of which there is something."""
        return {ref.datasetType.name for ref in self.refs}


def find_calibs(
    butler: Butler, instrument: str, detector: int, moment: Timespan, physical_filter: str | None
) -> list[tuple[DatasetRef, Timespan]]:
    """Return the calibs of a detector that are valid at a time, with their validity.

    Parameters
    ----------
    butler
        Central Butler.
    instrument, detector
        Whose calibs.
    moment
        Time of the visit.
    physical_filter
        Filter of the visit if it is known; flats of all filters are returned otherwise.
    """
    found = []
    for name in CALIB_TYPES:
        associations = butler.registry.queryDatasetAssociations(
            name,
            collections=collections.calibs(instrument),
            collectionTypes={CollectionType.CALIBRATION},
        )
        for association in associations:
            data_id = association.ref.dataId
            filters = {physical_filter, data_id.get("physical_filter")} - {None}
            if data_id["detector"] == detector and len(filters) < 2 and association.timespan.overlaps(moment):
                found.append((association.ref, association.timespan))
    return found


def find_refcat(butler: Butler, region: ConvexPolygon) -> list[DatasetRef]:
    """Return the shards of the reference catalogue that a region touches."""
    shards = [
        butler.find_dataset("refcat", htm7=index, collections=collections.REFCATS)
        for begin, end in _HTM.envelope(region)
        for index in range(begin, end)
    ]
    return [ref for ref in shards if ref is not None]


def find_templates(
    butler: Butler, instrument: str, region: ConvexPolygon, physical_filter: str | None
) -> list[DatasetRef]:
    """Return the template patches that a region touches.

    Parameters
    ----------
    butler
        Central Butler.
    instrument
        Whose templates.
    region
        Padded footprint.
    physical_filter
        Filter of the visit if it is known; patches of all bands are returned otherwise.
    """
    where = "skymap = skymap_name AND patch.region OVERLAPS field"
    bind = {"skymap_name": SKYMAP.name, "field": region}
    if physical_filter is not None:
        where += " AND band = visit_band"
        bind["visit_band"] = band_of(physical_filter)
    return butler.query_datasets(
        "template_coadd",
        collections=collections.templates(instrument),
        where=where,
        bind=bind,
        explain=False,
        limit=None,
    )
