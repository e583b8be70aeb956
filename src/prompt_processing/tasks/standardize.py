"""Detections in the form of the APDB: identifiers, visit, time and band; what is no source is left out."""

import numpy as np
from astropy.table import Table
from lsst.pex.config import ListField
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.domain.ids import detector_exposure_id, source_id
from prompt_processing.images.exposure import Exposure

_DETECTOR_VISIT = ("instrument", "visit", "detector")


class StandardizeConnections(PipelineTaskConnections, dimensions=_DETECTOR_VISIT):
    """Inputs and outputs of `StandardizeTask`."""

    unfiltered = ct.Input(
        doc="Everything that was detected.",
        name="dia_source_unfiltered",
        storageClass="ArrowAstropy",
        dimensions=_DETECTOR_VISIT,
    )
    difference = ct.Input(
        doc="Difference image; tells the visit.",
        name="difference_image",
        storageClass="PromptExposure",
        dimensions=_DETECTOR_VISIT,
    )
    sources = ct.Output(
        doc="Sources in the form of the APDB, without object and time of processing.",
        name="dia_source_detector",
        storageClass="DataFrame",
        dimensions=_DETECTOR_VISIT,
    )


class StandardizeConfig(PipelineTaskConfig, pipelineConnections=StandardizeConnections):
    """Configuration of `StandardizeTask`."""

    dropped_flags = ListField[str](
        doc="Flags of what is left out: a satellite leaves hundreds of pieces of its trail.",
        default=["pixelFlags_streakCenter"],
    )


class StandardizeTask(PipelineTask):
    """Name the sources and say where and when they were seen."""

    ConfigClass = StandardizeConfig
    config: StandardizeConfig
    _DefaultName = "standardizeDiaSource"

    def run(self, *, unfiltered: Table, difference: Exposure) -> Struct:
        """Make the DiaSource rows of a visit on a detector.

        A source's id follows from the exposure, the detector and its rank by y, x of the peak, which is the
        order of the table; so the same pixels always give the same ids.

        Parameters
        ----------
        unfiltered
            Detections with the measured columns of the APDB's DiaSource table.
        difference
            Difference image; its ``info`` is read.

        Returns
        -------
        struct
            ``sources``: rows whose position is known and that are not dropped, with ``diaSourceId``,
            ``visit``, ``detector``, ``band``, ``midpointMjdTai`` [d] and ``exposureTime`` [s].
        """
        info = difference.info
        base = detector_exposure_id(info["exposure"], info["detector"])
        frame = unfiltered.to_pandas()
        frame["diaSourceId"] = np.array([source_id(base, rank) for rank in range(len(frame))], dtype=np.int64)
        frame["visit"] = np.int64(info["visit"])
        frame["detector"] = np.int16(info["detector"])
        frame["band"] = info["band"]
        frame["midpointMjdTai"] = float(info["mjd_mid_tai"])
        frame["exposureTime"] = np.float32(info["exposure_time"])
        kept = np.isfinite(frame["ra"]) & np.isfinite(frame["dec"])
        for name in self.config.dropped_flags:
            kept &= ~frame[name]
        return Struct(sources=frame[kept].reset_index(drop=True))
