"""How a repository stores things: configuration of a new Butler, and the table of all dataset types.

The storage classes of images are our own, under names that the middleware does not know yet: it has an
``Exposure`` and ``Defects`` of its own already, and refuses a second definition.
"""

from dataclasses import dataclass
from typing import Any, Final

from lsst.daf.butler import Butler, Config, DatasetType, DimensionUniverse
from lsst.daf.butler.registry import ConflictingDefinitionError

from prompt_processing.domain.errors import RepositoryError

_FORMATTERS = "prompt_processing.instruments.formatters"

STORAGE_CLASSES: Final[dict[str, dict[str, Any]]] = {
    "JsonDict": {"pytype": "dict"},
    "ArrayDict": {"pytype": "dict"},
    "CalibImage": {"pytype": "numpy.ndarray"},
    "DefectMask": {"pytype": "numpy.ndarray"},
    "PixelArray": {"pytype": "numpy.ndarray"},
    "PixelShape": {"pytype": "tuple"},
    "PixelUnit": {"pytype": "str"},
    "AstropyWcs": {"pytype": "astropy.wcs.WCS"},
    "PsfModel": {"pytype": "prompt_processing.images.psf.PsfModel"},
    "FitsHeader": {"pytype": "astropy.io.fits.Header"},
    "PromptExposure": {
        "pytype": "prompt_processing.images.exposure.Exposure",
        "delegate": f"{_FORMATTERS}.ExposureDelegate",
        "derivedComponents": {
            "image": "PixelArray",
            "mask": "PixelArray",
            "variance": "PixelArray",
            "wcs": "AstropyWcs",
            "psf": "PsfModel",
            "info": "JsonDict",
            "unit": "PixelUnit",
            "shape": "PixelShape",
        },
    },
    "RawExposure": {
        "pytype": "prompt_processing.instruments.raw.RawExposure",
        "delegate": f"{_FORMATTERS}.RawDelegate",
        "derivedComponents": {"header": "FitsHeader"},
    },
}
"""Storage classes beside those of the middleware."""

FORMATTERS: Final = {
    "JsonDict": "lsst.daf.butler.formatters.json.JsonFormatter",
    "ArrayDict": f"{_FORMATTERS}.ArrayDictFormatter",
    "CalibImage": f"{_FORMATTERS}.ArrayFormatter",
    "DefectMask": f"{_FORMATTERS}.ArrayFormatter",
    "PromptExposure": f"{_FORMATTERS}.ExposureFormatter",
    "RawExposure": f"{_FORMATTERS}.RawFormatter",
}
"""Formatter of each storage class that is stored as a file."""

CACHE_BYTES: Final = 4_000_000_000
"""Size of the cache of files from an object store; a local repository is not cached."""


@dataclass(frozen=True, slots=True)
class DatasetKind:
    """What a dataset type is made of."""

    dimensions: tuple[str, ...]
    storage_class: str
    is_calibration: bool = False


_DETECTOR: Final = ("instrument", "detector")
_EXPOSURE: Final = ("instrument", "detector", "exposure")
_VISIT: Final = ("instrument", "detector", "visit")
_GROUP: Final = ("instrument", "detector", "group")

DATASET_TYPES: Final[dict[str, DatasetKind]] = {
    "raw": DatasetKind(_EXPOSURE, "RawExposure"),
    "bias": DatasetKind(_DETECTOR, "CalibImage", is_calibration=True),
    "dark": DatasetKind(_DETECTOR, "CalibImage", is_calibration=True),
    "flat": DatasetKind((*_DETECTOR, "physical_filter"), "CalibImage", is_calibration=True),
    "defects": DatasetKind(_DETECTOR, "DefectMask", is_calibration=True),
    "ptc": DatasetKind(_DETECTOR, "JsonDict", is_calibration=True),
    "refcat": DatasetKind(("htm7",), "ArrowAstropy"),
    "skyMap": DatasetKind(("skymap",), "JsonDict"),
    "template_coadd": DatasetKind(("skymap", "tract", "patch", "band"), "PromptExposure"),
    "post_isr_image": DatasetKind(_EXPOSURE, "PromptExposure"),
    "preliminary_visit_image": DatasetKind(_VISIT, "PromptExposure"),
    "preliminary_visit_image_background": DatasetKind(_VISIT, "ArrayDict"),
    "preliminary_visit_summary": DatasetKind(_VISIT, "JsonDict"),
    "single_visit_star": DatasetKind(_VISIT, "ArrowAstropy"),
    "template_joined": DatasetKind((*_GROUP, "skymap"), "ArrayDict"),
    "template_detector": DatasetKind(_VISIT, "PromptExposure"),
    "template_matched": DatasetKind(_VISIT, "PromptExposure"),
    "difference_image_predetection": DatasetKind(_VISIT, "PromptExposure"),
    "difference_image": DatasetKind(_VISIT, "PromptExposure"),
    "difference_image_metrics": DatasetKind(_VISIT, "JsonDict"),
    "difference_kernel": DatasetKind(_VISIT, "ArrayDict"),
    "dia_source_unfiltered": DatasetKind(_VISIT, "ArrowAstropy"),
    "dia_source_detector": DatasetKind(_VISIT, "DataFrame"),
    "dia_source_apdb": DatasetKind(_VISIT, "DataFrame"),
    "dia_object_apdb": DatasetKind(_VISIT, "DataFrame"),
    "dia_forced_source_apdb": DatasetKind(_VISIT, "DataFrame"),
    "prompt_provenance": DatasetKind(_VISIT, "JsonDict"),
    "regionTimeInfo": DatasetKind(_GROUP, "RegionTimeInfo"),
    "preloaded_dia_object": DatasetKind(_GROUP, "DataFrame"),
    "preloaded_dia_source": DatasetKind(_GROUP, "DataFrame"),
    "preloaded_dia_forced_source": DatasetKind(_GROUP, "DataFrame"),
}
"""Dataset types that the project's own code reads or writes; pipelines add metadata, logs and configs."""


def butler_config() -> Config:
    """Return the configuration that a new repository starts from.

    Use it as ``Butler.makeRepo(root, config=butler_config())``; what it does not set has the middleware's
    defaults.
    """
    return Config(
        {
            "storageClasses": STORAGE_CLASSES,
            "datastore": {
                "formatters": FORMATTERS,
                "cached": {
                    "expiry": {"mode": "size", "threshold": CACHE_BYTES},
                    "cacheable": dict.fromkeys(("CalibImage", "DefectMask", "PromptExposure"), True),
                },
            },
        }
    )


def register_dataset_types(butler: Butler, *names: str) -> None:
    """Register dataset types in a repository; safe to repeat.

    Parameters
    ----------
    butler
        Writeable Butler.
    *names
        Names in `DATASET_TYPES`; all of them when none is given.

    Raises
    ------
    KeyError
        If a name is not in the table.
    RepositoryError
        If the repository has a dataset type of that name with another definition.
    """
    for name in names or DATASET_TYPES:
        try:
            butler.registry.registerDatasetType(make_dataset_type(butler.dimensions, name))
        except ConflictingDefinitionError as error:
            raise RepositoryError(f"dataset type {name} exists with another definition ({error})") from error


def make_dataset_type(universe: DimensionUniverse, name: str) -> DatasetType:
    """Return a dataset type of `DATASET_TYPES` for the dimensions of a repository.

    Raises
    ------
    KeyError
        If the name is not in the table.
    """
    kind = DATASET_TYPES[name]
    return DatasetType(
        name,
        kind.dimensions,
        kind.storage_class,
        universe=universe,
        isCalibration=kind.is_calibration,
    )
