"""The template of one detector: coadd patches warped onto the science image's pixels."""

from collections.abc import Sequence

from lsst.daf.butler import DeferredDatasetHandle
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.domain.errors import NoTemplateError
from prompt_processing.images.exposure import Exposure
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.warp import mosaic


class GetTemplateConnections(
    PipelineTaskConnections, dimensions=("instrument", "visit", "detector", "skymap")
):
    """Inputs and outputs of `GetTemplateTask`."""

    exposure = ct.Input(
        doc="Science image whose WCS and shape the template takes.",
        name="preliminary_visit_image",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    coadds = ct.Input(
        doc="Template patches that overlap the science image [nJy].",
        name="template_coadd",
        storageClass="PromptExposure",
        dimensions=("skymap", "tract", "patch", "band"),
        multiple=True,
        deferLoad=True,
    )
    template = ct.Output(
        doc="Template on the science image's pixels [nJy].",
        name="template_detector",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )


class GetTemplateConfig(PipelineTaskConfig, pipelineConnections=GetTemplateConnections):
    """Configuration of `GetTemplateTask`."""


class GetTemplateTask(PipelineTask):
    """Warp every overlapping patch onto the science grid and join them."""

    ConfigClass = GetTemplateConfig
    _DefaultName = "getTemplate"

    def run(self, *, exposure: Exposure, coadds: Sequence[DeferredDatasetHandle]) -> Struct:
        """Make the template of a science image.

        Parameters
        ----------
        exposure
            Science image with WCS.
        coadds
            Handles of the patches.

        Returns
        -------
        struct
            ``template``: `~prompt_processing.images.exposure.Exposure` [nJy] of the science image's shape.

        Raises
        ------
        NoTemplateError
            If no patch has data inside the image.
        """
        handles = sorted(coadds, key=lambda handle: (handle.dataId["tract"], handle.dataId["patch"]))
        # Read one after the other, so that one patch is in memory at a time.
        patches = (handle.get() for handle in handles)
        joined = mosaic(
            ((patch.masked_image, patch.wcs) for patch in patches), exposure.wcs, exposure.masked_image.shape
        )
        if (joined.mask & MaskPlane.NO_DATA != 0).all():
            raise NoTemplateError(
                f"visit {exposure.info.get('visit')}: none of {len(coadds)} template patches covers the image"
            )
        used = [f"{handle.dataId['tract']}/{handle.dataId['patch']}" for handle in handles]
        info = {**exposure.info, "patches": used}
        return Struct(template=Exposure(joined, unit="nJy", wcs=exposure.wcs, info=info))
