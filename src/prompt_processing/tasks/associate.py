"""Association of the detections with the objects that are known: a pure task, nothing is stored here."""

import numpy as np
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct
from pandas import DataFrame, concat

from prompt_processing.domain.ids import detector_exposure_id, source_id
from prompt_processing.images.association import associate, before, summarise
from prompt_processing.images.exposure import Exposure
from prompt_processing.images.forced import measure_forced

_DETECTOR_VISIT = ("instrument", "visit", "detector")
_GROUP = ("instrument", "group", "detector")


class AssociateConnections(PipelineTaskConnections, dimensions=_DETECTOR_VISIT):
    """Inputs and outputs of `AssociateTask`."""

    sources = ct.Input(
        doc="Detections in the form of the APDB.",
        name="dia_source_detector",
        storageClass="DataFrame",
        dimensions=_DETECTOR_VISIT,
    )
    science = ct.Input(
        doc="Science image, for forced photometry [nJy].",
        name="preliminary_visit_image",
        storageClass="PromptExposure",
        dimensions=_DETECTOR_VISIT,
    )
    difference = ct.Input(
        doc="Difference image, for forced photometry [nJy].",
        name="difference_image",
        storageClass="PromptExposure",
        dimensions=_DETECTOR_VISIT,
    )
    old_objects = ct.Input(
        doc="Objects of the field that were known before the visit.",
        name="preloaded_dia_object",
        storageClass="DataFrame",
        dimensions=_GROUP,
    )
    old_sources = ct.Input(
        doc="Their sources.", name="preloaded_dia_source", storageClass="DataFrame", dimensions=_GROUP
    )
    old_forced = ct.Input(
        doc="Their forced sources.",
        name="preloaded_dia_forced_source",
        storageClass="DataFrame",
        dimensions=_GROUP,
    )
    dia_sources = ct.Output(
        doc="Sources with the object they belong to, for the APDB.",
        name="dia_source_apdb",
        storageClass="DataFrame",
        dimensions=_DETECTOR_VISIT,
    )
    dia_objects = ct.Output(
        doc="New and changed objects, for the APDB.",
        name="dia_object_apdb",
        storageClass="DataFrame",
        dimensions=_DETECTOR_VISIT,
    )
    dia_forced_sources = ct.Output(
        doc="Forced photometry of this visit at the positions of all objects of the field, for the APDB.",
        name="dia_forced_source_apdb",
        storageClass="DataFrame",
        dimensions=_DETECTOR_VISIT,
    )


class AssociateConfig(PipelineTaskConfig, pipelineConnections=AssociateConnections):
    """Configuration of `AssociateTask`."""

    radius = Field[float](doc="Largest distance of a source from its object [arcsec].", default=1.0)


class AssociateTask(PipelineTask):
    """Associate sources with objects, summarise the objects and measure all objects of the field."""

    ConfigClass = AssociateConfig
    config: AssociateConfig
    _DefaultName = "associateApdb"

    def run(
        self,
        *,
        sources: DataFrame,
        science: Exposure,
        difference: Exposure,
        old_objects: DataFrame,
        old_sources: DataFrame,
        old_forced: DataFrame,
    ) -> Struct:
        """Associate.

        Parameters
        ----------
        sources
            New sources in the form of the APDB.
        science, difference
            Images for forced photometry [nJy].
        old_objects, old_sources, old_forced
            History of the field; what is not older than this visit is not looked at.

        Returns
        -------
        struct
            ``dia_sources``: the new sources with ``diaObjectId``; ``dia_objects``: one row for each object
            that has a new source; ``dia_forced_sources``: one row for each object inside the image.
        """
        midpoint = float(difference.info["mjd_mid_tai"])
        # After an attempt that was cut short the history may hold this very visit.
        old_objects = old_objects[old_objects["firstDiaSourceMjdTai"] < midpoint]
        old_sources, old_forced = before(old_sources, midpoint), before(old_forced, midpoint)
        associated = associate(sources, old_objects, self.config.radius)
        forced = self._measure_forced(associated, old_objects, science, difference)
        touched = set(associated["diaObjectId"])
        objects = summarise(
            _of_objects([old_sources, associated], touched), _of_objects([old_forced, forced], touched)
        )
        return Struct(dia_sources=associated, dia_objects=objects, dia_forced_sources=forced)

    def _measure_forced(
        self, sources: DataFrame, old_objects: DataFrame, science: Exposure, difference: Exposure
    ) -> DataFrame:
        """Return the forced sources of this visit: at all known objects and at those that are new."""
        info = difference.info
        new = sources[sources["diaObjectId"] == sources["diaSourceId"]]
        columns = ["diaObjectId", "ra", "dec"]
        places = concat([old_objects[columns], new[columns]]).sort_values("diaObjectId", kind="stable")
        measured = measure_forced(
            difference.masked_image,
            science.masked_image,
            difference_psf=difference.measured_psf,
            science_psf=science.measured_psf,
            wcs=difference.wcs,
            ra=places["ra"].to_numpy(dtype=float),
            dec=places["dec"].to_numpy(dtype=float),
        ).to_pandas()
        base = detector_exposure_id(info["exposure"], info["detector"])
        forced = places.iloc[measured.pop("index")].astype({"diaObjectId": "int64"}).reset_index(drop=True)
        ids = [source_id(base, rank) for rank in range(len(forced))]
        return forced.assign(
            diaForcedSourceId=np.array(ids, dtype=np.int64),
            visit=np.int64(info["visit"]),
            detector=np.int16(info["detector"]),
            band=info["band"],
            midpointMjdTai=float(info["mjd_mid_tai"]),
            **measured,
        )


def _of_objects(tables: list[DataFrame], objects: set[int]) -> DataFrame:
    """Return the measurements of some objects from several tables."""
    parts = [table[table["diaObjectId"].isin(objects)].astype({"diaObjectId": "int64"}) for table in tables]
    return concat([part for part in parts if len(part)] or parts, ignore_index=True)
