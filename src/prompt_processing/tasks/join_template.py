"""The template patches of a field, joined before there is an image."""

from collections.abc import Sequence

import numpy as np
from lsst.daf.butler import DeferredDatasetHandle
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct
from lsst.pipe.base.utils import RegionTimeInfo
from lsst.sphgeom import LonLat

from prompt_processing.domain.errors import NoTemplateError
from prompt_processing.images.joining import TractGrid, to_arrays
from prompt_processing.images.masks import MaskPlane


class JoinTemplateConnections(
    PipelineTaskConnections, dimensions=("instrument", "group", "detector", "skymap")
):
    """Inputs and outputs of `JoinTemplateTask`."""

    field = ct.Input(
        doc="Where the visit will look, with a margin.",
        name="regionTimeInfo",
        storageClass="RegionTimeInfo",
        dimensions=("instrument", "group", "detector"),
    )
    coadds = ct.Input(
        doc="Template patches that overlap the field [nJy].",
        name="template_coadd",
        storageClass="PromptExposure",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    joined = ct.Output(
        doc="Template on the pixels of its tracts [nJy].",
        name="template_joined",
        storageClass="ArrayDict",
        dimensions=("instrument", "group", "detector", "skymap"),
    )


class JoinTemplateConfig(PipelineTaskConfig, pipelineConnections=JoinTemplateConnections):
    """Configuration of `JoinTemplateTask`."""


class JoinTemplateTask(PipelineTask):
    """Join the patches of each tract. Needs no pixels of the visit, so a worker does it before the image."""

    ConfigClass = JoinTemplateConfig
    _DefaultName = "joinTemplate"

    def run(self, *, field: RegionTimeInfo, coadds: Sequence[DeferredDatasetHandle]) -> Struct:
        """Join patches.

        Parameters
        ----------
        field
            Region that is needed.
        coadds
            Handles of the patches. Where two overlap, the one of the lower number wins.

        Returns
        -------
        struct
            ``joined``: see `prompt_processing.images.joining.to_arrays`.

        Raises
        ------
        NoTemplateError
            If no patch has data inside the field.
        """
        corners = [LonLat(vertex) for vertex in field.region.getVertices()]
        ra = np.array([corner.getLon().asDegrees() for corner in corners])
        dec = np.array([corner.getLat().asDegrees() for corner in corners])
        handles = sorted(coadds, key=lambda handle: (handle.dataId["tract"], handle.dataId["patch"]))
        grids: dict[int, TractGrid] = {}
        for handle in handles:
            # One patch at a time, so that no more than one is in memory beside the result.
            patch = handle.get()
            tract = handle.dataId["tract"]
            if tract not in grids:
                grids[tract] = TractGrid(patch.wcs, ra, dec)
            grids[tract].paste(patch.masked_image, patch.wcs)
        if all((grid.pixels.mask & MaskPlane.NO_DATA != 0).all() for grid in grids.values()):
            raise NoTemplateError(f"none of {len(handles)} template patches has data in the field")
        used = [(handle.dataId["tract"], handle.dataId["patch"]) for handle in handles]
        return Struct(joined=to_arrays(grids, used))
