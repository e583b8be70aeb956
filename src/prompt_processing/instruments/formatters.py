"""How the Butler reads and writes this project's datasets.

The configuration of a repository names them by dotted path:
`prompt_processing.instruments.dataset_types`.
"""

from typing import Any, ClassVar

import numpy as np
from astropy.io import fits
from lsst.daf.butler import FormatterV2, StorageClassDelegate
from lsst.resources import ResourcePath
from numpy.typing import NDArray

from prompt_processing.images.exposure import Exposure
from prompt_processing.instruments.exposure_fits import (
    component_of,
    read_component,
    read_exposure,
    write_exposure,
)
from prompt_processing.instruments.raw import RawExposure, read_raw, read_raw_header


class RawFormatter(FormatterV2):
    """Reads a raw, and its header alone as the component ``header``; raws are ingested, never written."""

    can_read_from_local_file = True
    default_extension = ".fits"
    supported_extensions: ClassVar[frozenset[str]] = frozenset(
        {".fits", ".fit", ".fz", ".fits.fz", ".fits.gz"}
    )

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read a raw or its header.

        ``GROUPID`` is the group of the data id if that has its records: the sidecar that may have named it is
        not beside the raw any more.
        """
        del expected_size
        if component is not None and component != "header":
            raise KeyError(f"a raw has no component {component}")
        if component == "header":
            return self._with_group(read_raw_header(path))
        raw = read_raw(path)
        self._with_group(raw.header)
        return raw

    def _with_group(self, header: fits.Header) -> fits.Header:
        if self.data_id.hasRecords():
            record = self.data_id.records["exposure"]
            if record is not None:
                header["GROUPID"] = record.group
        return header


class ExposureFormatter(FormatterV2):
    """Reads and writes an `Exposure` as multi-extension FITS without loss."""

    can_read_from_local_file = True
    default_extension = ".fits"

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read an exposure, or one of its components."""
        del expected_size
        return read_exposure(path) if component is None else read_component(path, component)

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write an exposure."""
        write_exposure(in_memory_dataset, uri.ospath)


class ArrayFormatter(FormatterV2):
    """Reads and writes one array as the image of a FITS file; true and false as 1 and 0."""

    can_read_from_local_file = True
    default_extension = ".fits"

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the array, with the type that was written."""
        del component, expected_size
        with fits.open(path, memmap=False) as hdus:
            data: NDArray[Any] = hdus[0].data
            kind = np.dtype(hdus[0].header["NPDTYPE"])
        return np.ascontiguousarray(data, dtype=kind)

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write an array of numbers, or of true and false.

        Raises
        ------
        KeyError
            If FITS has no pixels of that type.
        """
        array = np.asarray(in_memory_dataset)
        stored = array.astype(np.uint8) if array.dtype == bool else array
        hdu = fits.PrimaryHDU(stored)
        hdu.header["NPDTYPE"] = (array.dtype.name, "type of the array in memory")
        hdu.writeto(uri.ospath, overwrite=True)


class ArrayDictFormatter(FormatterV2):
    """Reads and writes a dictionary of arrays and plain scalars as ``.npz``, without pickle.

    Each entry is an array of that name in the file; one without dimensions is a scalar: a number, true or
    false, or a text.
    """

    can_read_from_local_file = True
    default_extension = ".npz"

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """Read the dictionary; scalars come back as plain Python values."""
        del component, expected_size
        with np.load(path, allow_pickle=False) as archive:
            return {name: value if value.ndim else value.item() for name, value in archive.items()}

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write the dictionary.

        Raises
        ------
        ValueError
            If a value is an object that only pickle could keep.
        """
        arrays = {name: np.asarray(value) for name, value in in_memory_dataset.items()}
        np.savez(uri.ospath, allow_pickle=False, **arrays)


class ExposureDelegate(StorageClassDelegate):
    """Gives components of an `Exposure` that is in memory."""

    def getComponent(self, composite: Exposure, componentName: str) -> Any:  # noqa: N802, N803 - base class
        """Return a component."""
        return component_of(composite, componentName)


class RawDelegate(StorageClassDelegate):
    """Gives the header of a `RawExposure` that is in memory."""

    def getComponent(self, composite: RawExposure, componentName: str) -> fits.Header:  # noqa: N802, N803 - as above
        """Return the component ``header``."""
        if componentName != "header":
            raise AttributeError(f"a raw has no component {componentName}")
        return composite.header
