"""The layout of a raw of LATISS or LSSTCam, and writing one.

The simulator has its own description of the format instead of sharing that of the reader: what both would
have wrong in the same way, no test could find.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

SEGMENTS: Final = (*(f"1{column}" for column in range(8)), *(f"0{column}" for column in reversed(range(8))))
"""Names of the amplifiers in the order of the extensions of a raw."""
ADC_MAXIMUM: Final = 2**18 - 1
"""Largest value of the 18 bit converter [adu]."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of the detector that one amplifier reads."""

    name: str
    rows: slice
    """Rows of the detector, ascending."""
    columns: slice
    """Columns of the detector, ascending."""
    top: bool
    """Whether it is read towards the last row of the detector instead of the first."""
    mirrored: bool
    """Whether it is read towards higher instead of lower columns."""

    @property
    def detsec(self) -> str:
        """The ``DETSEC`` card: 1-based, inclusive, in the order of readout."""
        left, right = self.columns.start + 1, self.columns.stop
        x = f"{left}:{right}" if self.mirrored else f"{right}:{left}"
        low, high = self.rows.start + 1, self.rows.stop
        return f"[{x},{high}:{low}]" if self.top else f"[{x},{low}:{high}]"

    def in_read_order(self, detector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a view of its pixels whose element ``[0, 0]`` is the one read first.

        Parameters
        ----------
        detector : `numpy.ndarray`
            Image of the detector, shape ``(ny, nx)``.

        Returns
        -------
        view : `numpy.ndarray`
            The segment's pixels, shape ``(rows, columns)``.
        """
        part = detector[self.rows, self.columns]
        return part[:: -1 if self.top else 1, :: 1 if self.mirrored else -1]


@dataclass(frozen=True, slots=True)
class CameraLayout:
    """A detector of two rows of eight amplifiers.

    Those of the second row (``Segment0x``) are read from the last row of the detector downwards.
    """

    columns: int
    """Columns of light-sensitive pixels of one amplifier."""
    rows: int
    """Rows of light-sensitive pixels of one amplifier."""
    prescan: int
    """Columns read before the data."""
    overscan: int
    """Columns read after the data (serial overscan)."""
    parallel: int
    """Rows read after the data (parallel overscan)."""
    turned: bool = False
    """Whether the second row is turned by half a circle against the first, as in detectors of E2V, instead of
    mirrored, as in those of ITL."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(ny, nx)`` of the detector in pixels."""
        return 2 * self.rows, 8 * self.columns

    @property
    def raw_shape(self) -> tuple[int, int]:
        """Shape ``(ny, nx)`` of the image of one amplifier."""
        return self.rows + self.parallel, self.prescan + self.columns + self.overscan

    @property
    def data(self) -> tuple[slice, slice]:
        """Slices ``[y, x]`` of the light-sensitive pixels in the image of one amplifier."""
        return slice(0, self.rows), slice(self.prescan, self.prescan + self.columns)

    @property
    def datasec(self) -> str:
        """The ``DATASEC`` card."""
        return f"[{self.prescan + 1}:{self.prescan + self.columns},1:{self.rows}]"

    @property
    def detsize(self) -> str:
        """The ``DETSIZE`` card."""
        ny, nx = self.shape
        return f"[1:{nx},1:{ny}]"

    def segments(self) -> Iterator[Segment]:
        """Yield the amplifiers in the order of the extensions."""
        for name in SEGMENTS:
            column, top = int(name[1]), name[0] == "0"
            first = self.rows if top else 0
            yield Segment(
                name=f"Segment{name}",
                rows=slice(first, first + self.rows),
                columns=slice(column * self.columns, (column + 1) * self.columns),
                top=top,
                mirrored=top and self.turned,
            )


def write_raw(
    path: Path,
    header: fits.Header,
    layout: CameraLayout,
    pixels: Sequence[NDArray[np.int32]],
    *,
    compress: bool,
) -> None:
    """Write one raw: an empty primary HDU and one image per amplifier.

    Parameters
    ----------
    path : `pathlib.Path`
        File to write, replaced if it exists.
    header : `astropy.io.fits.Header`
        Cards of the primary HDU.
    layout : `CameraLayout`
        Layout of the detector.
    pixels : `~collections.abc.Sequence` [`numpy.ndarray`]
        Images of the amplifiers [adu], each of shape ``layout.raw_shape``, in the order of the extensions.
    compress : `bool`
        Whether the amplifiers are Rice-compressed row by row.
    """
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    for channel, (segment, image) in enumerate(zip(layout.segments(), pixels, strict=True), start=1):
        hdu = fits.CompImageHDU(image, compression_type="RICE_1") if compress else fits.ImageHDU(image)
        # Set as a card, because the argument of the HDU would turn it into capitals.
        hdu.header["EXTNAME"] = segment.name
        hdu.header["CHANNEL"] = channel
        hdu.header["CCDSUM"] = "1 1"
        hdu.header["DATASEC"] = layout.datasec
        hdu.header["DETSEC"] = segment.detsec
        hdu.header["DETSIZE"] = layout.detsize
        hdus.append(hdu)
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = partial_name(path)
    hdus.writeto(incomplete, overwrite=True)
    incomplete.replace(path)


def partial_name(path: Path) -> Path:
    """Return the temporary name of a file that is being written.

    It begins with a dot, so that a search for raws skips it, and keeps the extension.

    Parameters
    ----------
    path
        Final path of the file.

    Returns
    -------
    partial
        Path in the same folder.
    """
    return path.with_name(f".partial-{path.name}")
