"""The image containers that go from task to task: pixels with noise, mask, WCS and PSF."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from prompt_processing.domain.errors import PsfError
from prompt_processing.images.masks import MASK_DTYPE
from prompt_processing.images.psf import PsfModel


@dataclass(slots=True)
class MaskedImage:
    """Pixels with their noise and mask, all of one shape ``(ny, nx)``.

    Pixel (x, y) is ``image[y, x]``; its centre has the coordinates (x, y), so the first pixel's centre
    is (0, 0).

    Raises
    ------
    ValueError
        If the planes differ in shape.
    """

    image: NDArray[np.float32]
    """Pixel values, in the unit of the exposure."""
    variance: NDArray[np.float32]
    """Variance of each pixel, in that unit squared."""
    mask: NDArray[np.uint16]
    """Bits of `~prompt_processing.images.masks.MaskPlane`."""

    def __post_init__(self) -> None:
        self.image = np.asarray(self.image, dtype=np.float32)
        self.variance = np.asarray(self.variance, dtype=np.float32)
        self.mask = np.asarray(self.mask, dtype=MASK_DTYPE)
        if not self.image.shape == self.variance.shape == self.mask.shape:
            raise ValueError(
                f"planes differ in shape: image {self.image.shape}, variance {self.variance.shape}, "
                f"mask {self.mask.shape}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(ny, nx)`` in pixels."""
        ny, nx = self.image.shape
        return ny, nx

    def copy(self) -> "MaskedImage":
        """Return a deep copy."""
        return MaskedImage(self.image.copy(), self.variance.copy(), self.mask.copy())


@dataclass(slots=True)
class Exposure:
    """A masked image with what is known about it.

    Datasets of storage class ``Exposure`` (``post_isr_image``, ``preliminary_visit_image``,
    ``template_coadd``, ``template_detector``, ``difference_image``) are objects of this class.
    """

    masked_image: MaskedImage
    unit: str
    """Unit of the pixels: ``electron`` before, ``nJy`` after photometric calibration."""
    wcs: WCS | None = None
    """Celestial WCS (TAN or TAN-SIP, ICRS); call it with origin 0."""
    psf: PsfModel | None = None
    """PSF over the image; absent before it is measured."""
    info: dict[str, Any] = field(default_factory=dict)
    """What is known of the observation, as JSON scalars: ``instrument``, ``detector``, ``exposure``,
    ``visit``, ``group``, ``day_obs``, ``band``, ``physical_filter``, ``exposure_time`` [s],
    ``mjd_mid_tai``, ``mjd_end_tai`` [d], ``ra``, ``dec``, ``rotation`` [deg; boresight as the header says],
    ``gain`` [electron/adu, mean], ``read_noise`` [electron, mean] and what later tasks add."""

    @property
    def measured_psf(self) -> PsfModel:
        """The PSF, where there must be one.

        Raises
        ------
        PsfError
            If it has not been measured.
        """
        if self.psf is None:
            raise PsfError(f"exposure {self.info.get('exposure')}: the PSF has not been measured")
        return self.psf
