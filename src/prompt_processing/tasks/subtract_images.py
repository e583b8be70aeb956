"""Alard-Lupton subtraction of the template."""

import numpy as np
from astropy.table import Table
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.images.exposure import Exposure
from prompt_processing.images.subtraction import subtract


class SubtractImagesConnections(PipelineTaskConnections, dimensions=("instrument", "visit", "detector")):
    """Inputs and outputs of `SubtractImagesTask`."""

    science = ct.Input(
        doc="Science image [nJy].",
        name="preliminary_visit_image",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    template = ct.Input(
        doc="Template on the science image's pixels [nJy].",
        name="template_detector",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    stars = ct.Input(
        doc="Stars of the science image, from which the matching kernel is fitted.",
        name="single_visit_star",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    difference = ct.Output(
        doc="Science minus matched template, with white noise [nJy].",
        name="difference_image_predetection",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    matched = ct.Output(
        doc="Template with the PSF of the science image [nJy].",
        name="template_matched",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    kernel = ct.Output(
        doc="Matching kernel and background of the subtraction.",
        name="difference_kernel",
        storageClass="ArrayDict",
        dimensions=("instrument", "visit", "detector"),
    )


class SubtractImagesConfig(PipelineTaskConfig, pipelineConnections=SubtractImagesConnections):
    """Configuration of `SubtractImagesTask`."""


class SubtractImagesTask(PipelineTask):
    """Match the template's PSF to the science image and subtract."""

    ConfigClass = SubtractImagesConfig
    _DefaultName = "subtractImages"

    def run(self, *, science: Exposure, template: Exposure, stars: Table) -> Struct:
        """Subtract the template.

        Parameters
        ----------
        science, template
            Images on one grid [nJy]; the science image has a PSF.
        stars
            Columns ``x``, ``y`` [pixel] and ``flux`` [nJy].

        Returns
        -------
        struct
            ``difference`` with its own PSF, ``matched`` and ``kernel`` as a dictionary of arrays.

        Raises
        ------
        SubtractionError
            If too few stars are left to fit a kernel.
        """
        result = subtract(
            science.masked_image,
            template.masked_image,
            science_psf=science.measured_psf,
            x=np.asarray(stars["x"], dtype=float),
            y=np.asarray(stars["y"], dtype=float),
            flux=np.asarray(stars["flux"], dtype=float),
        )
        difference = Exposure(
            result.difference,
            unit="nJy",
            wcs=science.wcs,
            psf=result.psf,
            info={**science.info, **result.metrics},
        )
        matched = Exposure(
            result.matched_template, unit="nJy", wcs=science.wcs, psf=science.psf, info=dict(science.info)
        )
        return Struct(difference=difference, matched=matched, kernel=result.kernel.to_arrays())
