"""The template of one detector: coadd patches warped onto the science image's pixels."""

from collections.abc import Sequence

import numpy as np
from lsst.daf.butler import DeferredDatasetHandle
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.domain.errors import NoTemplateError
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.masks import MASK_DTYPE, MaskPlane
from prompt_processing.images.warp import warp


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
            Handles of the patches; read one after the other, so that one patch is in memory at a time.

        Returns
        -------
        struct
            ``template``: `~prompt_processing.images.exposure.Exposure` [nJy] of the science image's shape.

        Raises
        ------
        NoTemplateError
            If no patch has data inside the image.
        """
        joined = _empty(exposure.masked_image.shape)
        used = []
        for handle in sorted(coadds, key=lambda h: (h.dataId["tract"], h.dataId["patch"])):
            patch: Exposure = handle.get()
            warped = warp(patch.masked_image, patch.wcs, exposure.wcs, joined.shape)
            if _fill(joined, warped):
                used.append(f"{handle.dataId['tract']}/{handle.dataId['patch']}")
        if not used:
            raise NoTemplateError(
                f"visit {exposure.info.get('visit')}: none of {len(coadds)} template patches covers the image"
            )
        info = {**exposure.info, "patches": used}
        return Struct(template=Exposure(joined, unit="nJy", wcs=exposure.wcs, info=info))


def _empty(shape: tuple[int, int]) -> MaskedImage:
    """Return an image without any data."""
    return MaskedImage(
        np.full(shape, np.nan, dtype=np.float32),
        np.full(shape, np.nan, dtype=np.float32),
        np.full(shape, MaskPlane.NO_DATA, dtype=MASK_DTYPE),
    )


def _fill(joined: MaskedImage, patch: MaskedImage) -> bool:
    """Copy a patch's pixels to where there are none yet; tell whether there were any.

    Patches overlap, and overlapping pixels come from the same warps: the first is as good as the second.
    """
    new = (joined.mask & MaskPlane.NO_DATA != 0) & (patch.mask & MaskPlane.NO_DATA == 0)
    joined.image[new] = patch.image[new]
    joined.variance[new] = patch.variance[new]
    joined.mask[new] = patch.mask[new]
    return bool(new.any())
