"""Three tasks that do next to nothing, so that what is measured is the framework around them."""

from typing import Any

import numpy as np
from astropy.table import Table
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct

from prompt_processing.images.exposure import Exposure, MaskedImage

EXPOSURE = ("instrument", "exposure", "detector")
VISIT = ("instrument", "visit", "detector")
CALIB = ("instrument", "detector")


def calib(name: str, *, dimensions: tuple[str, ...] = CALIB) -> Any:
    """Return the connection of a calib."""
    return ct.PrerequisiteInput(
        doc=name, name=name, storageClass="CalibImage", dimensions=dimensions, isCalibration=True
    )


def output(name: str, storage_class: str = "PromptExposure", dimensions: tuple[str, ...] = VISIT) -> Any:
    """Return the connection of an output."""
    return ct.Output(doc=name, name=name, storageClass=storage_class, dimensions=dimensions)


class IsrConnections(PipelineTaskConnections, dimensions=EXPOSURE):
    """A raw with calibs."""

    raw = ct.Input(doc="raw", name="raw", storageClass="RawExposure", dimensions=EXPOSURE)
    bias = calib("bias")
    dark = calib("dark")
    flat = calib("flat", dimensions=(*CALIB, "physical_filter"))
    image = output("trivial_isr_image", dimensions=EXPOSURE)
    summary = output("trivial_isr_summary", "JsonDict", EXPOSURE)


class IsrConfig(PipelineTaskConfig, pipelineConnections=IsrConnections):
    """No settings."""


class IsrTask(PipelineTask):
    """Take a corner of the first amplifier."""

    ConfigClass = IsrConfig
    _DefaultName = "isr"

    def run(self, *, raw: Any, bias: Any, dark: Any, flat: Any) -> Struct:
        """Return an image of 64 x 64 pixels."""
        pixels = np.full((64, 64), float(raw.shape[0]), np.float32)
        planes = MaskedImage(pixels, pixels, np.zeros((64, 64), np.uint16))
        return Struct(image=Exposure(planes, unit="electron"), summary={"shape": list(bias.shape)})


class CalibrateConnections(PipelineTaskConnections, dimensions=VISIT):
    """An image becomes an image, a background, a table and a summary."""

    image = ct.Input(
        doc="image", name="trivial_isr_image", storageClass="PromptExposure", dimensions=EXPOSURE
    )
    calibrated = output("trivial_visit_image")
    background = output("trivial_background", "ArrayDict")
    stars = output("trivial_star", "ArrowAstropy")
    summary = output("trivial_summary", "JsonDict")


class CalibrateConfig(PipelineTaskConfig, pipelineConnections=CalibrateConnections):
    """No settings."""


class CalibrateTask(PipelineTask):
    """Hand the image on."""

    ConfigClass = CalibrateConfig
    _DefaultName = "calibrate"

    def run(self, *, image: Exposure) -> Struct:
        """Return the image, and little else."""
        return Struct(
            calibrated=image,
            background={"nodes": np.zeros((4, 4))},
            stars=Table({"x": np.arange(10.0), "y": np.arange(10.0)}),
            summary={"stars": 10},
        )


class SubtractConnections(PipelineTaskConnections, dimensions=(*VISIT, "skymap")):
    """An image and template patches."""

    science = ct.Input(
        doc="science", name="trivial_visit_image", storageClass="PromptExposure", dimensions=VISIT
    )
    templates = ct.Input(
        doc="patches", name="template_coadd", storageClass="PromptExposure",
        dimensions=("skymap", "tract", "patch", "band"), multiple=True, deferLoad=True,
    )  # fmt: skip
    difference = output("trivial_difference_image")
    sources = output("trivial_dia_source", "ArrowAstropy")
    kernel = output("trivial_kernel", "ArrayDict")
    metrics = output("trivial_metrics", "JsonDict")


class SubtractConfig(PipelineTaskConfig, pipelineConnections=SubtractConnections):
    """No settings."""


class SubtractTask(PipelineTask):
    """Look at every patch."""

    ConfigClass = SubtractConfig
    _DefaultName = "subtract"

    def run(self, *, science: Exposure, templates: list[Any]) -> Struct:
        """Return the image, and little else."""
        patches = [handle.get() for handle in templates]
        return Struct(
            difference=science,
            sources=Table({"x": np.arange(10.0), "flux": np.ones(10)}),
            kernel={"coefficients": np.zeros(10)},
            metrics={"patches": len(patches)},
        )


class ModelConnections(PipelineTaskConnections, dimensions=VISIT):
    """Something that nobody has made."""

    model = ct.PrerequisiteInput(
        doc="model", name="trained_model", storageClass="JsonDict", dimensions=("instrument",)
    )
    summary = output("trivial_model_summary", "JsonDict")


class ModelConfig(PipelineTaskConfig, pipelineConnections=ModelConnections):
    """No settings."""


class ModelTask(PipelineTask):
    """Hand the model on."""

    ConfigClass = ModelConfig
    _DefaultName = "model"

    def run(self, *, model: Any) -> Struct:
        """Return the model."""
        return Struct(summary=model)
