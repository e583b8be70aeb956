"""Instrument signature removal: a raw becomes an image in electrons."""

from typing import Any

from lsst.pex.config import Field
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.images.exposure import Exposure
from prompt_processing.images.isr import process_raw
from prompt_processing.instruments.cameras import LATISS
from prompt_processing.instruments.info import exposure_info
from prompt_processing.instruments.raw import RawExposure


class IsrConnections(PipelineTaskConnections, dimensions=("instrument", "exposure", "detector")):
    """Inputs and outputs of `IsrTask`."""

    raw = ct.Input(
        doc="The raw as it came from the camera.",
        name="raw",
        storageClass="RawExposure",
        dimensions=("instrument", "exposure", "detector"),
    )
    bias = ct.PrerequisiteInput(
        doc="Bias after overscan subtraction [adu].",
        name="bias",
        storageClass="CalibImage",
        dimensions=("instrument", "detector"),
        isCalibration=True,
    )
    dark = ct.PrerequisiteInput(
        doc="Dark current [electron/s].",
        name="dark",
        storageClass="CalibImage",
        dimensions=("instrument", "detector"),
        isCalibration=True,
    )
    flat = ct.PrerequisiteInput(
        doc="Relative response.",
        name="flat",
        storageClass="CalibImage",
        dimensions=("instrument", "detector", "physical_filter"),
        isCalibration=True,
    )
    defects = ct.PrerequisiteInput(
        doc="Pixels that must not be used.",
        name="defects",
        storageClass="DefectMask",
        dimensions=("instrument", "detector"),
        isCalibration=True,
    )
    ptc = ct.PrerequisiteInput(
        doc="Gain [electron/adu] and read noise [electron] of each amplifier, from flat pairs.",
        name="ptc",
        storageClass="JsonDict",
        dimensions=("instrument", "detector"),
        isCalibration=True,
    )
    output_exposure = ct.Output(
        doc="Image without instrument signature [electron].",
        name="post_isr_image",
        storageClass="PromptExposure",
        dimensions=("instrument", "exposure", "detector"),
    )


class IsrConfig(PipelineTaskConfig, pipelineConnections=IsrConnections):
    """Configuration of `IsrTask`."""

    saturation = Field[float](
        doc="Level above the overscan at which a pixel counts as saturated [adu].", default=LATISS.saturation
    )


class IsrTask(PipelineTask):
    """Turn a raw into an image in electrons with variance and mask planes."""

    ConfigClass = IsrConfig
    config: IsrConfig
    _DefaultName = "isr"

    def run(
        self, *, raw: RawExposure, bias: Any, dark: Any, flat: Any, defects: Any, ptc: dict[str, Any]
    ) -> Struct:
        """Remove the instrument's signature.

        Parameters
        ----------
        raw
            Amplifier segments and header.
        bias, dark, flat
            Calib images, shape ``(ny, nx)`` of the detector.
        defects
            Boolean array of the same shape.
        ptc
            ``gain`` and ``read_noise`` by amplifier name.

        Returns
        -------
        struct
            ``output_exposure``: `~prompt_processing.images.exposure.Exposure` [electron].

        Raises
        ------
        RawError
            If the pixels cannot be used: all saturated, all NaN, or of another geometry than the calibs.
        """
        info = exposure_info(raw)
        masked = process_raw(
            raw.amplifiers,
            bias=bias,
            dark=dark,
            flat=flat,
            defects=defects,
            gains=ptc["gain"],
            read_noises=ptc["read_noise"],
            exposure_time=info["dark_time"],
            saturation=self.config.saturation,
        )
        info["gain"] = _mean(ptc["gain"])
        info["read_noise"] = _mean(ptc["read_noise"])
        return Struct(output_exposure=Exposure(masked, unit="electron", info=info))


def _mean(by_amplifier: dict[str, float]) -> float:
    return sum(by_amplifier.values()) / len(by_amplifier)
