"""The template of one detector: the joined patches warped onto the science image's pixels."""

from typing import Any

from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.domain.errors import NoTemplateError
from prompt_processing.images.exposure import Exposure
from prompt_processing.images.joining import from_arrays
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
    joined = ct.Input(
        doc="Template on the pixels of its tracts [nJy].",
        name="template_joined",
        storageClass="ArrayDict",
        dimensions=("instrument", "group", "detector", "skymap"),
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
    """Warp the joined tracts onto the science grid."""

    ConfigClass = GetTemplateConfig
    _DefaultName = "getTemplate"

    def run(self, *, exposure: Exposure, joined: dict[str, Any]) -> Struct:
        """Make the template of a science image.

        Parameters
        ----------
        exposure
            Science image with WCS.
        joined
            Output of `~prompt_processing.tasks.join_template.JoinTemplateTask`.

        Returns
        -------
        struct
            ``template``: `~prompt_processing.images.exposure.Exposure` [nJy] of the science image's shape.

        Raises
        ------
        NoTemplateError
            If no patch has data inside the image.
        """
        template = mosaic(from_arrays(joined), exposure.wcs, exposure.masked_image.shape)
        patches = [f"{tract}/{patch}" for tract, patch in joined["patches"].tolist()]
        if (template.mask & MaskPlane.NO_DATA != 0).all():
            raise NoTemplateError(
                f"visit {exposure.info.get('visit')}: none of {len(patches)} template patches covers it"
            )
        info = {**exposure.info, "patches": patches}
        return Struct(template=Exposure(template, unit="nJy", wcs=exposure.wcs, info=info))
