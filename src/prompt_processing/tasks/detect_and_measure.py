"""Detection and measurement on the difference image."""

from typing import Any

from astropy.table import Table
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.images.dia_detection import detect
from prompt_processing.images.dia_measurement import measure
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.streaks import mask_streaks


class DetectAndMeasureConnections(PipelineTaskConnections, dimensions=("instrument", "visit", "detector")):
    """Inputs and outputs of `DetectAndMeasureTask`."""

    science = ct.Input(
        doc="Science image [nJy].",
        name="preliminary_visit_image",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    template = ct.Input(
        doc="Template with the PSF of the science image [nJy].",
        name="template_matched",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    predetection = ct.Input(
        doc="Difference image before detection [nJy].",
        name="difference_image_predetection",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    sources = ct.Output(
        doc="Everything that was detected, with measurements and flags.",
        name="dia_source_unfiltered",
        storageClass="ArrowAstropy",
        dimensions=("instrument", "visit", "detector"),
    )
    difference = ct.Output(
        doc="Difference image with the mask planes of the detections [nJy].",
        name="difference_image",
        storageClass="PromptExposure",
        dimensions=("instrument", "visit", "detector"),
    )
    metrics = ct.Output(
        doc="Figures of the difference image.",
        name="difference_image_metrics",
        storageClass="JsonDict",
        dimensions=("instrument", "visit", "detector"),
    )


class DetectAndMeasureConfig(PipelineTaskConfig, pipelineConnections=DetectAndMeasureConnections):
    """Configuration of `DetectAndMeasureTask`."""

    threshold = Field[float](doc="Detection threshold in the S/N map of the matched filter.", default=5.0)


class DetectAndMeasureTask(PipelineTask):
    """Find what changed, and measure it."""

    ConfigClass = DetectAndMeasureConfig
    config: DetectAndMeasureConfig
    _DefaultName = "detectAndMeasure"

    def run(self, *, science: Exposure, template: Exposure, predetection: Exposure) -> Struct:
        """Detect and measure.

        Parameters
        ----------
        science, template, predetection
            Images on one grid [nJy]; the difference has its PSF.

        Returns
        -------
        struct
            ``sources``: one row per detection, columns named as in the APDB's DiaSource table;
            ``difference``: the difference image with ``STREAK`` and ``DETECTED`` bits; ``metrics``.
        """
        planes = predetection.masked_image
        # The pixels are shared with the input; only the mask is new.
        masked = MaskedImage(planes.image, planes.variance, planes.mask.copy())
        n_streaks = mask_streaks(masked)
        peaks = detect(masked, predetection.measured_psf, threshold=self.config.threshold)
        sources = measure(
            masked,
            science.masked_image,
            template.masked_image,
            psf=predetection.measured_psf,
            science_psf=science.measured_psf,
            peaks=peaks,
            wcs=predetection.wcs,
        )
        difference = Exposure(masked, "nJy", predetection.wcs, predetection.psf, dict(predetection.info))
        return Struct(sources=sources, difference=difference, metrics=_metrics(sources, n_streaks))


def _metrics(sources: Table, n_streaks: int) -> dict[str, Any]:
    return {
        "n_dia_sources": len(sources),
        "n_dia_sources_negative": int(sources["isNegative"].sum()) if len(sources) else 0,
        "n_streaks": n_streaks,
    }
