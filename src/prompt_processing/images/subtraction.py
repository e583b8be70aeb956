"""Subtraction of a template: PSF matching, difference, decorrelation of the noise."""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import sep
from numpy.typing import NDArray
from scipy import fft, signal

from prompt_processing.domain.errors import SubtractionError
from prompt_processing.images.convolution import convolve, convolve_sum
from prompt_processing.images.exposure import MaskedImage
from prompt_processing.images.kernel import KernelFit, MatchingKernel, fit_kernel
from prompt_processing.images.masks import MASK_DTYPE, UNUSABLE, MaskPlane
from prompt_processing.images.psf import PsfModel

MAX_STAMPS: Final = 300
CELLS: Final = 16
"""The brightest star in each of ``CELLS x CELLS`` cells gets a stamp first, so that stamps cover the
image."""
BACKGROUND_MESH: Final = 256
"""Mesh of the background that is removed from the difference, in pixels."""
REACH_SHARE: Final = 0.02
"""A bad template pixel spoils the distance beyond which less than this share of the kernel lies."""
BRIGHT: Final = 500.0
"""Where the template is brighter than this many standard deviations of the sky's noise, no kernel is good
enough for the rest to be noise: ``SUSPECT``, spread over the kernel. The same around saturated pixels."""
_DECORRELATION_GRID: Final = 128


@dataclass(slots=True, frozen=True)
class Subtraction:
    """A difference image and what it was made with."""

    difference: MaskedImage
    """Science minus matched template, background removed, noise white; unit of the inputs."""
    psf: PsfModel
    """PSF of the difference, of sum 1 like the science PSF: fluxes fitted with it are those of the science
    image."""
    matched_template: MaskedImage
    """The template with the PSF of the science image. Its variance is that of white noise of equal power on
    the scale of a PSF; the noise of neighbouring pixels is correlated."""
    kernel: MatchingKernel
    metrics: dict[str, float]
    """``kernel_sum``, ``stamps``, ``stamps_used``, ``kernel_chi2``, ``kernel_rank``, ``kernel_parameters``,
    ``kernel_reach`` [px], ``noise_ratio`` (robust standard deviation of the difference over its expected
    noise)."""


def subtract(
    science: MaskedImage,
    template: MaskedImage,
    *,
    science_psf: PsfModel,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    flux: NDArray[np.float64],
) -> Subtraction:
    """Match a template to a science image and subtract it.

    The kernel (Alard & Lupton 1998) is fitted on stamps around the brightest good stars and applied exactly.
    The difference is convolved with one decorrelation kernel (Reiss & Lupton 2016, DMTN-021), that of the
    centre of the image, which makes its noise white again; its PSF is the science PSF convolved with that.

    Parameters
    ----------
    science, template
        Images on one pixel grid and in one unit, shape ``(ny, nx)``.
    science_psf
        PSF of the science image.
    x, y, flux
        Positions in pixels and fluxes of stars on the science image, shape ``(n,)``.

    Returns
    -------
    Subtraction

    Raises
    ------
    SubtractionError
        If the images differ in shape, do not overlap, or no kernel can be fitted.
    """
    if science.shape != template.shape:
        raise SubtractionError(f"science image {science.shape} and template {template.shape} differ in shape")
    fwhm = science_psf.fwhm(science.shape[1] / 2, science.shape[0] / 2)
    template = _clean(template)
    science = _clean(science)
    usable = _usable(science, template, round(fwhm))
    stamps = select_stamps(x, y, flux, usable)
    if stamps.size == 0:
        raise SubtractionError(
            f"none of the {len(x)} stars lies on pixels that both images can be compared on"
        )
    fit = fit_kernel(science, template, usable, x[stamps], y[stamps], fwhm=fwhm)
    kernel = fit.kernel
    model = convolve_sum(template.image, kernel.planes, kernel.factor)
    reach = kernel_reach(kernel.central)
    kernel_sum = float(kernel.central.sum())
    half_size = kernel.planes.shape[-1] // 2
    mask = _difference_mask(science.mask, template.mask, reach, half_size)
    good = (mask & np.uint16(UNUSABLE)) == 0
    if not good.any():
        raise SubtractionError("science image and template have no usable pixels in common")
    sample = slice(None, None, 5), slice(None, None, 5)
    noise = [float(np.median(image.variance[sample][good[sample]])) for image in (science, template)]
    template_variance = template.variance * np.float32(kernel_sum**2)
    variance = science.variance + template_variance
    saturated = ((science.mask | template.mask) & np.uint16(MaskPlane.SAT)) != 0
    bright = saturated | (model > BRIGHT * np.sqrt(sum(noise)))
    mask[grow(bright.astype(MASK_DTYPE), half_size) != 0] |= np.uint16(MaskPlane.SUSPECT)
    decorrelation = decorrelation_kernel(kernel.central, *noise)
    image = science.image - model
    _subtract_background(image, good)
    image = convolve(np.where(good, image, np.float32(0.0)), decorrelation)
    image[~good] = 0.0
    psf = _convolved_psf(science_psf, decorrelation)
    metrics = _metrics(fit, kernel_sum, reach, stamps.size, image, variance, good)
    matched = MaskedImage(model, template_variance, grow(template.mask, reach))
    return Subtraction(MaskedImage(image, variance, mask), psf, matched, kernel, metrics)


def select_stamps(
    x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64], usable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Choose stars for the kernel: the brightest of each cell of the image, then the brightest of the rest.

    Parameters
    ----------
    x, y, flux
        Positions in pixels and fluxes, shape ``(n,)``.
    usable
        Pixels that can be compared, shape ``(ny, nx)``. A star whose central 5 x 5 pixels are not all usable
        is left out.

    Returns
    -------
    NDArray
        Indices of at most `MAX_STAMPS` stars, brightest of cells first.
    """
    ny, nx = usable.shape
    ix, iy = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    inside = (ix >= 2) & (iy >= 2) & (ix < nx - 2) & (iy < ny - 2) & (flux > 0)
    good = np.array(
        [
            ok and bool(usable[j - 2 : j + 3, i - 2 : i + 3].all())
            for ok, i, j in zip(inside, ix, iy, strict=True)
        ],
        dtype=bool,
    )
    candidates = np.flatnonzero(good)
    candidates = candidates[np.lexsort((candidates, -flux[candidates]))]
    cells = (iy[candidates] * CELLS // ny) * CELLS + ix[candidates] * CELLS // nx
    _, first = np.unique(cells, return_index=True)
    leading = candidates[np.sort(first)]
    rest = candidates[~np.isin(candidates, leading)]
    return np.concatenate([leading, rest])[:MAX_STAMPS]


def decorrelation_kernel(
    kernel: NDArray[np.float64], science_variance: float, template_variance: float
) -> NDArray[np.float64]:
    """Return the kernel that makes the noise of ``science - kernel * template`` white.

    Parameters
    ----------
    kernel
        Matching kernel, shape ``(size, size)``.
    science_variance, template_variance
        Variance of the noise of a pixel of each image.

    Returns
    -------
    NDArray
        Shape ``(size, size)``, sum 1: the flux of a star is unchanged. The variance of the result is
        ``science_variance + kernel_sum**2 * template_variance``.

    Notes
    -----
    Reiss & Lupton 2016, DMTN-021, eq. 4, normalised at zero frequency.
    """
    half = kernel.shape[0] // 2
    grid = max(_DECORRELATION_GRID, fft.next_fast_len(2 * kernel.shape[0]))
    power = np.abs(fft.rfft2(kernel, s=(grid, grid))) ** 2
    flat = science_variance + template_variance * power[0, 0]
    field = fft.irfft2(np.sqrt(flat / (science_variance + template_variance * power)), s=(grid, grid))
    field = np.roll(field, (half, half), axis=(0, 1))[: kernel.shape[0], : kernel.shape[1]]
    result: NDArray[np.float64] = field / field.sum()
    return result


def kernel_reach(kernel: NDArray[np.float64]) -> int:
    """Return the half size of the square that holds the kernel but for a share of `REACH_SHARE`.

    Parameters
    ----------
    kernel
        Kernel, shape ``(size, size)``, odd size.

    Returns
    -------
    reach
        Distance from the middle pixel [px], in the maximum norm.
    """
    half = kernel.shape[0] // 2
    offsets = np.abs(np.arange(-half, half + 1))
    distance = np.maximum(offsets[:, np.newaxis], offsets[np.newaxis, :])
    outside = np.array([np.abs(kernel[distance > r]).sum() for r in range(half + 1)])
    return int(np.argmax(outside <= REACH_SHARE * np.abs(kernel).sum()))


def grow(mask: NDArray[np.uint16], radius: int) -> NDArray[np.uint16]:
    """Spread every bit of a mask over the square of a half size around its pixel.

    Parameters
    ----------
    mask
        Shape ``(ny, nx)``.
    radius
        Half size of the square in pixels, 0 or more.

    Returns
    -------
    NDArray
        A new array, shape ``(ny, nx)``.
    """
    if radius == 0 or not mask.any():
        return mask.copy()
    wide, grown = np.zeros_like(mask), np.zeros_like(mask)
    _spread(np.ascontiguousarray(mask), radius, wide, grown)
    return grown


@numba.njit(cache=True, nogil=True)
def _spread(
    mask: NDArray[np.uint16], radius: int, wide: NDArray[np.uint16], grown: NDArray[np.uint16]
) -> None:
    """Spread bits along rows into ``wide`` and from there along columns into ``grown``; both begin as 0."""
    ny, nx = mask.shape
    for y in range(ny):
        for x in range(nx):
            bits = mask[y, x]
            if bits != 0 and not (0 < x < nx - 1 and mask[y, x - 1] == bits and mask[y, x + 1] == bits):
                # Inside of a run of equal bits the neighbours do the work.
                wide[y, max(0, x - radius) : x + radius + 1] |= bits
            else:
                wide[y, x] |= bits
    filled = np.zeros(ny, dtype=np.bool_)
    for y in range(ny):
        filled[y] = wide[y].any()
    for y in range(ny):
        for above in range(max(0, y - radius), min(ny, y + radius + 1)):
            if filled[above]:
                for x in range(nx):
                    grown[y, x] |= wide[above, x]


def _clean(masked: MaskedImage) -> MaskedImage:
    """Return an image without values that are not finite: they are 0 with ``NO_DATA``."""
    broken = ~(np.isfinite(masked.image) & np.isfinite(masked.variance))
    broken |= (masked.mask & np.uint16(MaskPlane.NO_DATA)) != 0
    if not broken.any():
        return masked
    image, variance, mask = masked.image.copy(), masked.variance.copy(), masked.mask.copy()
    image[broken] = 0.0
    variance[broken] = 0.0
    mask[broken] |= np.uint16(MaskPlane.NO_DATA)
    return MaskedImage(image, variance, mask)


def _usable(science: MaskedImage, template: MaskedImage, reach: int) -> NDArray[np.bool_]:
    """Return the pixels on which a kernel can be fitted before its reach is known."""
    bad = np.uint16(UNUSABLE)
    template_bad = grow(template.mask & bad, reach)
    usable = ((science.mask | template_bad) & (bad | np.uint16(MaskPlane.SUSPECT))) == 0
    usable[:reach] = usable[-reach:] = False
    usable[:, :reach] = usable[:, -reach:] = False
    return usable


def _difference_mask(
    science: NDArray[np.uint16], template: NDArray[np.uint16], reach: int, half_size: int
) -> NDArray[np.uint16]:
    """Mask of the difference: the science mask, and what the kernel makes of the template's.

    Saturation of the template is spread over the whole kernel, since what is missing there is many times the
    noise; other planes over the kernel's reach. Where the kernel reaches over the edge of the template the
    model lacks light: ``EDGE``.
    """
    detected = np.uint16(MaskPlane.DETECTED | MaskPlane.DETECTED_NEGATIVE)
    saturated = np.uint16(MaskPlane.SAT)
    passed_on = np.uint16(MaskPlane.BAD | MaskPlane.CR | MaskPlane.NO_DATA | MaskPlane.SUSPECT)
    mask = science & ~detected
    mask |= grow(template & passed_on, reach)
    spread = grow(template & saturated, half_size) != 0
    mask[spread] |= np.uint16(MaskPlane.SAT_TEMPLATE)
    edge = np.ones(mask.shape, dtype=bool)
    edge[reach : mask.shape[0] - reach, reach : mask.shape[1] - reach] = False
    mask[edge] |= np.uint16(MaskPlane.EDGE)
    return mask.astype(MASK_DTYPE)


def _subtract_background(image: NDArray[np.float32], good: NDArray[np.bool_]) -> None:
    """Remove what is left of the sky, in place; pixels that are not good are not looked at."""
    mesh = min(BACKGROUND_MESH, *image.shape)
    background = sep.Background(np.ascontiguousarray(image), mask=~good, bw=mesh, bh=mesh)
    background.subfrom(image)


def _convolved_psf(psf: PsfModel, kernel: NDArray[np.float64]) -> PsfModel:
    """Convolve a PSF with a constant kernel of sum 1; the polynomial in position stays one."""
    planes = np.stack([signal.fftconvolve(plane, kernel, mode="same") for plane in psf.coefficients])
    return PsfModel(planes, psf.order, psf.shape)


def _metrics(
    fit: KernelFit,
    kernel_sum: float,
    reach: int,
    stamps: int,
    image: NDArray[np.float32],
    variance: NDArray[np.float32],
    good: NDArray[np.bool_],
) -> dict[str, float]:
    sample = slice(None, None, 3), slice(None, None, 3)
    keep = good[sample]
    ratio = image[sample][keep] / np.sqrt(variance[sample][keep])
    spread = 1.4826 * float(np.median(np.abs(ratio - np.median(ratio))))
    return {
        "kernel_sum": kernel_sum,
        "stamps": float(stamps),
        "stamps_used": float(fit.used.sum()),
        "kernel_chi2": fit.chi2_per_pixel,
        "kernel_rank": float(fit.rank),
        "kernel_parameters": float(fit.n_parameters),
        "kernel_reach": float(reach),
        "noise_ratio": spread,
    }
