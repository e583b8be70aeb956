"""From an image in electrons to a preliminary visit image: PSF, WCS and nanojansky."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from astropy.time import Time
from lsst.pex.config import Field
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, Struct
from lsst.pipe.base import connectionTypes as ct
from numpy.typing import NDArray

from prompt_processing.domain.errors import NoRefcatError
from prompt_processing.images.astrometry import AstrometricSolution, solve
from prompt_processing.images.background import Background, subtract_background
from prompt_processing.images.cosmic_rays import mask_cosmic_rays
from prompt_processing.images.detection import detect_sources, estimate_fwhm
from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.masks import UNUSABLE
from prompt_processing.images.photometry import ZeroPoint, fit_zero_point, psf_photometry
from prompt_processing.images.psf_fitting import fit_psf
from prompt_processing.images.psf_stars import select_stars
from prompt_processing.instruments.cameras import get_camera

_DETECTOR_VISIT = ("instrument", "visit", "detector")


class CalibrateImageConnections(PipelineTaskConnections, dimensions=_DETECTOR_VISIT):
    """Inputs and outputs of `CalibrateImageTask`."""

    exposures = ct.Input(
        doc="Image of the visit without instrument signature [electron].",
        name="post_isr_image",
        storageClass="PromptExposure",
        dimensions=("instrument", "exposure", "detector"),
        multiple=True,
    )
    refcat = ct.PrerequisiteInput(
        doc="Shards of the reference catalogue.",
        name="refcat",
        storageClass="ArrowAstropy",
        dimensions=("htm7",),
        multiple=True,
    )
    exposure = ct.Output(
        doc="Image with PSF and WCS, sky subtracted [nJy].",
        name="preliminary_visit_image",
        storageClass="PromptExposure",
        dimensions=_DETECTOR_VISIT,
    )
    background = ct.Output(
        doc="The sky that was subtracted, as a mesh [electron].",
        name="preliminary_visit_image_background",
        storageClass="ArrayDict",
        dimensions=_DETECTOR_VISIT,
    )
    stars = ct.Output(
        doc="Sources of the image with PSF photometry.",
        name="single_visit_star",
        storageClass="ArrowAstropy",
        dimensions=_DETECTOR_VISIT,
    )
    summary = ct.Output(
        doc="Figures of the image: seeing, sky, zero point, astrometric scatter.",
        name="preliminary_visit_summary",
        storageClass="JsonDict",
        dimensions=_DETECTOR_VISIT,
    )


class CalibrateImageConfig(PipelineTaskConfig, pipelineConnections=CalibrateImageConnections):
    """Configuration of `CalibrateImageTask`."""

    threshold = Field[float](doc="Detection threshold, in the S/N of the matched filter.", default=5.0)


class CalibrateImageTask(PipelineTask):
    """Characterise and calibrate one image."""

    ConfigClass = CalibrateImageConfig
    config: CalibrateImageConfig
    _DefaultName = "calibrateImage"

    def run(self, *, exposures: Sequence[Exposure], refcat: Sequence[Table]) -> Struct:
        """Characterise and calibrate one image.

        Parameters
        ----------
        exposures
            The exposure of the visit [electron]; visits have one exposure.
        refcat
            Tables with ``id``, ``ra``, ``dec`` [deg], ``<band>_mag``, ``<band>_magErr`` and maybe ``pm_ra``,
            ``pm_dec`` [mas/yr].

        Returns
        -------
        struct
            ``exposure`` [nJy], ``background``, ``stars``, ``summary``.

        Raises
        ------
        ScienceError
            If the PSF, the WCS or the zero point cannot be measured; the message says why.
        NoRefcatError
            If the catalogue has no magnitudes in the band of the image.
        """
        (raw,) = exposures
        masked = raw.masked_image.copy()
        info = dict(raw.info)
        n_cosmic_ray = mask_cosmic_rays(masked)
        background = subtract_background(masked)
        fwhm = estimate_fwhm(masked)
        sources = detect_sources(masked, fwhm=fwhm, threshold=self.config.threshold)
        # Once the sources are known, the sky under them is too.
        correction = subtract_background(masked)
        psf = fit_psf(masked, sources, select_stars(masked, sources, fwhm=fwhm), fwhm=fwhm)
        stars = psf_photometry(masked, psf, sources["x"], sources["y"], free=True)
        reference = reference_at(vstack(list(refcat)), info["band"], info["mjd_mid_tai"])
        # A saturated star has no place and no flux to speak of.
        good = np.nonzero((np.asarray(sources["flags"]) & int(UNUSABLE)) == 0)[0]
        solution = _solve(stars[good], reference, info, masked.shape)
        zero_point = _zero_point(stars[good], reference, solution)
        _calibrate(masked, zero_point)
        summary = {
            "psf_fwhm": psf.fwhm(masked.shape[1] / 2, masked.shape[0] / 2),
            "sky_electron": background.level + correction.level,
            "sky_rms_electron": correction.rms,
            "zero_point_mag": zero_point.magnitude,
            "zero_point_scatter_mag": zero_point.scatter_mag,
            "astrometry_rms_arcsec": solution.rms_arcsec,
            "n_sources": len(stars),
            "n_astrometry": solution.n_used,
            "pointing_error_arcsec": solution.offset_arcsec,
            "rotation_error_deg": solution.rotation_error,
            "n_photometry": zero_point.n_used,
            "n_cosmic_ray_pixels": n_cosmic_ray,
        }
        info["nanojansky_per_electron"] = zero_point.nanojansky_per_count
        return Struct(
            exposure=Exposure(masked, unit="nJy", wcs=solution.wcs, psf=psf, info=info),
            background=_background_arrays(background, correction),
            stars=_star_table(stars, sources, good[solution.detections], solution, zero_point),
            summary=summary,
        )


def reference_at(refcat: Table, band: str, mjd: float) -> Table:
    """Return the reference stars of a band as they are at a time.

    Parameters
    ----------
    refcat
        Reference catalogue; its metadata may hold ``epoch``, the Julian year of the positions.
    band
        Band of the image.
    mjd
        Time of the image [MJD, TAI].

    Returns
    -------
    reference
        Columns ``id``, ``ra``, ``dec`` [deg], ``mag``.

    Raises
    ------
    NoRefcatError
        If the catalogue has no magnitudes in the band.
    """
    if f"{band}_mag" not in refcat.colnames:
        bands = [name.removesuffix("_mag") for name in refcat.colnames if name.endswith("_mag")]
        raise NoRefcatError(
            f"the reference catalogue has no magnitudes in band {band}, only in {', '.join(bands)}"
        )
    ra, dec = np.asarray(refcat["ra"], dtype=float), np.asarray(refcat["dec"], dtype=float)
    if "pm_ra" in refcat.colnames and "epoch" in refcat.meta:
        years = float(Time(mjd, format="mjd", scale="tai").jyear) - float(refcat.meta["epoch"])
        to_degrees = years / 3.6e6
        ra = ra + to_degrees * np.nan_to_num(refcat["pm_ra"]) / np.cos(np.radians(dec))
        dec = dec + to_degrees * np.nan_to_num(refcat["pm_dec"])
    return Table({"id": refcat["id"], "ra": ra, "dec": dec, "mag": refcat[f"{band}_mag"]})


def _solve(
    stars: Table, reference: Table, info: dict[str, Any], shape: tuple[int, int]
) -> AstrometricSolution:
    camera = get_camera(info["instrument"])
    start = camera.predicted_wcs(info["detector"], info["ra"], info["dec"], info["rotation"], shape)
    x, y, flux = (np.asarray(stars[name]) for name in ("x", "y", "flux"))
    error = np.hypot(stars["x_err"], stars["y_err"]) / np.sqrt(2)
    return solve(x, y, flux, np.asarray(error), reference, start, shape)


def _zero_point(stars: Table, reference: Table, solution: AstrometricSolution) -> ZeroPoint:
    matched, counterpart = stars[solution.detections], reference[solution.references]
    return fit_zero_point(
        np.asarray(matched["flux"]), np.asarray(matched["flux_err"]), np.asarray(counterpart["mag"])
    )


def _calibrate(masked: MaskedImage, zero_point: ZeroPoint) -> None:
    """Turn electrons into nanojansky, in place."""
    scale = np.float32(zero_point.nanojansky_per_count)
    masked.image *= scale
    masked.variance *= scale * scale


def _background_arrays(background: Background, correction: Background) -> dict[str, Any]:
    """Return both meshes as one: they have one geometry, and what they draw is linear in them."""
    return {
        "mesh": background.mesh + correction.mesh,
        "cell": np.array(background.cell),
        "shape": np.array(background.shape),
    }


def _star_table(
    stars: Table,
    sources: Table,
    matched: NDArray[np.int64],
    solution: AstrometricSolution,
    zero_point: ZeroPoint,
) -> Table:
    """Return the sources in nanojansky, with their position on the sky."""
    table = stars.copy()
    for name in ("flux", "flux_err"):
        table[name] = table[name] * zero_point.nanojansky_per_count
    table["ra"], table["dec"] = solution.wcs.all_pix2world(table["x"], table["y"], 0)
    table["flags"] = sources["flags"]
    table["matched"] = np.isin(np.arange(len(table)), matched)
    return table
