"""An `Exposure` as a FITS file, without loss: every number comes back with the same bits.

======== ============ ===================================================================================
HDU      kind         content
======== ============ ===================================================================================
(first)  primary      no pixels; a few cards for people
IMAGE    image f32    pixel values; ``BUNIT``; the WCS as ordinary cards, for display tools
MASK     image u16    mask bits; an ``MP_<NAME>`` card gives the bit number of each plane; WCS cards
VARIANCE image f32    variance; WCS cards
WCS      table        the WCS in doubles, one row (absent without a WCS)
PSF      image f64    PSF coefficients ``(n_terms, size, size)``; ``PSFORDER``, ``PSFNY``, ``PSFNX`` (absent
                      without a PSF)
INFO     table        one row, column ``JSON``: what is known of the observation
======== ============ ===================================================================================

Nothing is compressed: writing and reading 163 MB is quicker than compressing them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, Sip
from numpy.typing import NDArray

from prompt_processing.images.exposure import Exposure, MaskedImage
from prompt_processing.images.masks import MaskPlane
from prompt_processing.images.psf import PsfModel

_SIP: Final = ("a", "b", "ap", "bp")
_TITLES: Final = {
    "instrument": "INSTRUME", "obs_id": "OBSID", "exposure": "EXPOSURE", "visit": "VISIT",
    "detector": "DETECTOR", "day_obs": "DAYOBS", "group": "GROUPID", "physical_filter": "FILTER",
    "band": "BAND", "exposure_time": "EXPTIME", "mjd_mid_tai": "MJD-AVG",
}  # fmt: skip


def write_exposure(exposure: Exposure, path: str | Path) -> None:
    """Write an exposure.

    Parameters
    ----------
    exposure
        The exposure; its ``info`` must consist of JSON values.
    path
        Local file, replaced if it exists.

    Raises
    ------
    TypeError
        If ``info`` holds something that JSON cannot.
    ValueError
        If the WCS is not TAN or TAN-SIP, or has tables of distortion, ``PV`` or ``PS`` cards.
    """
    if exposure.wcs is not None:
        _check_wcs(exposure.wcs)
    cards = _display_cards(exposure.wcs)
    masked = exposure.masked_image
    image = fits.ImageHDU(masked.image, header=cards.copy(), name="IMAGE")
    image.header["BUNIT"] = exposure.unit
    mask = fits.ImageHDU(masked.mask, header=cards.copy(), name="MASK")
    for plane in MaskPlane:
        mask.header[f"HIERARCH MP_{plane.name}"] = int(plane).bit_length() - 1
    variance = fits.ImageHDU(masked.variance, header=cards.copy(), name="VARIANCE")
    variance.header["BUNIT"] = f"{exposure.unit}2"
    hdus = [_primary(exposure.info), image, mask, variance]
    if exposure.wcs is not None:
        hdus.append(_wcs_table(exposure.wcs))
    if exposure.psf is not None:
        hdus.append(_psf_image(exposure.psf))
    hdus.append(_info_table(exposure.info))
    fits.HDUList(hdus).writeto(path, overwrite=True)


def read_exposure(path: str | Path) -> Exposure:
    """Read an exposure; every number has the bits that were written.

    Raises
    ------
    KeyError
        If the file is not one of `write_exposure`: an HDU is missing.
    OSError
        If the file is not FITS.
    """
    with fits.open(path, memmap=False) as hdus:
        masked = MaskedImage(*(_pixels(hdus, name) for name in ("IMAGE", "VARIANCE", "MASK")))
        return Exposure(
            masked, unit=_unit(hdus), wcs=_read_wcs(hdus), psf=_read_psf(hdus), info=_read_info(hdus)
        )


def read_component(path: str | Path, component: str) -> Any:
    """Read a part of an exposure, without reading the rest of the file.

    Parameters
    ----------
    path
        Local file.
    component
        ``image``, ``mask``, ``variance``, ``wcs``, ``psf``, ``info``, ``unit`` or ``shape``.

    Raises
    ------
    KeyError
        If there is no such component, or the file is not one of `write_exposure`.
    """
    # Unmapped and lazily loaded: only the HDU that is asked for is read.
    with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
        return _READERS[component](hdus)


def component_of(exposure: Exposure, component: str) -> Any:
    """Return what `read_component` would, from an exposure in memory."""
    if component in {"image", "mask", "variance", "shape"}:
        return getattr(exposure.masked_image, component)
    return getattr(exposure, component)


def _pixels(hdus: fits.HDUList, name: str) -> NDArray[Any]:
    data = hdus[name].data
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))


def _unit(hdus: fits.HDUList) -> str:
    return str(hdus["IMAGE"].header["BUNIT"])


def _shape(hdus: fits.HDUList) -> tuple[int, int]:
    header = hdus["IMAGE"].header
    return int(header["NAXIS2"]), int(header["NAXIS1"])


def _primary(info: dict[str, Any]) -> fits.PrimaryHDU:
    """Make a first HDU with what a person looks for in a header."""
    hdu = fits.PrimaryHDU()
    for key, card in _TITLES.items():
        value = info.get(key)
        if isinstance(value, int | float | str) and value == value:  # noqa: PLR0124 - NaN is not allowed in FITS
            hdu.header[card] = value
    return hdu


def _check_wcs(wcs: WCS) -> None:
    """Refuse a WCS that has more than the table of this format keeps."""
    types = list(wcs.wcs.ctype)
    if types not in (["RA---TAN", "DEC--TAN"], ["RA---TAN-SIP", "DEC--TAN-SIP"]):
        raise ValueError(f"only a TAN or TAN-SIP WCS can be stored, not {types}")
    if wcs.cpdis1 or wcs.cpdis2 or wcs.det2im1 or wcs.det2im2 or wcs.wcs.get_pv() or wcs.wcs.get_ps():
        raise ValueError("a WCS with tables of distortion, or with PV or PS cards, cannot be stored")


def _display_cards(wcs: WCS | None) -> fits.Header:
    """Return the WCS as cards, rounded to what fits into them."""
    return fits.Header() if wcs is None else wcs.to_header(relax=True)


def _info_table(info: dict[str, Any]) -> fits.BinTableHDU:
    text = json.dumps(info, default=_plain).encode("ascii")
    column = fits.Column(name="JSON", format=f"{len(text)}A", array=np.array([text]))
    return fits.BinTableHDU.from_columns([column], name="INFO")


def _plain(value: Any) -> Any:
    """Return the plain number in a numpy scalar."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} in the info of an exposure is not a JSON value")


def _read_info(hdus: fits.HDUList) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(hdus["INFO"].data["JSON"][0])
    return info


def _psf_image(psf: PsfModel) -> fits.ImageHDU:
    hdu = fits.ImageHDU(np.asarray(psf.coefficients, dtype=np.float64), name="PSF")
    hdu.header["PSFORDER"] = (psf.order, "order of the polynomial in position")
    hdu.header["PSFNY"], hdu.header["PSFNX"] = psf.shape
    return hdu


def _read_psf(hdus: fits.HDUList) -> PsfModel | None:
    if "PSF" not in hdus:
        return None
    header = hdus["PSF"].header
    return PsfModel(
        _pixels(hdus, "PSF"), int(header["PSFORDER"]), (int(header["PSFNY"]), int(header["PSFNX"]))
    )


def _wcs_table(wcs: WCS) -> fits.BinTableHDU:
    """Make the table with the numbers of a WCS that define it, in doubles."""
    parameters = wcs.wcs
    linear = "CD" if parameters.has_cd() else "PC"
    matrix = parameters.cd if linear == "CD" else parameters.get_pc()
    numbers: dict[str, Any] = {
        "CRPIX": parameters.crpix,
        "CRVAL": parameters.crval,
        linear: matrix.ravel(),
        "LONPOLE": [parameters.lonpole],
        "LATPOLE": [parameters.latpole],
        "EQUINOX": [parameters.equinox],
    }
    if linear == "PC":
        numbers["CDELT"] = parameters.cdelt
    if wcs.sip is not None:
        numbers["SIPCRPIX"] = wcs.sip.crpix
        numbers |= {
            f"SIP_{name.upper()}": values.ravel()
            for name in _SIP
            if (values := getattr(wcs.sip, name)) is not None
        }
    columns = [
        fits.Column(name=name, format=f"{len(values)}D", array=np.asarray(values, dtype=np.float64)[None, :])
        for name, values in numbers.items()
    ]
    texts = {
        "CTYPE": ",".join(parameters.ctype),
        "CUNIT": ",".join(str(unit) for unit in parameters.cunit),
        "RADESYS": parameters.radesys,
        "PIXSHAPE": ",".join(str(size) for size in wcs.pixel_shape or ()),
    }
    columns += [
        fits.Column(name=name, format=f"{max(len(text), 1)}A", array=np.array([text]))
        for name, text in texts.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name="WCS")


def _read_wcs(hdus: fits.HDUList) -> WCS | None:
    """Build the WCS from its table."""
    if "WCS" not in hdus:
        return None
    row = hdus["WCS"].data[0]
    names = set(hdus["WCS"].columns.names)
    wcs = WCS(naxis=2)
    parameters = wcs.wcs
    parameters.ctype = row["CTYPE"].split(",")
    parameters.cunit = row["CUNIT"].split(",")
    parameters.crpix, parameters.crval = row["CRPIX"], row["CRVAL"]
    if "CD" in names:
        parameters.cd = row["CD"].reshape(2, 2)
    else:
        parameters.pc, parameters.cdelt = row["PC"].reshape(2, 2), row["CDELT"]
    parameters.lonpole, parameters.latpole = _float(row["LONPOLE"]), _float(row["LATPOLE"])
    parameters.equinox, parameters.radesys = _float(row["EQUINOX"]), row["RADESYS"]
    if "SIPCRPIX" in names:
        wcs.sip = Sip(*(_square(row, names, f"SIP_{name.upper()}") for name in _SIP), row["SIPCRPIX"])
    parameters.set()
    if row["PIXSHAPE"]:
        wcs.pixel_shape = tuple(int(size) for size in row["PIXSHAPE"].split(","))
    return wcs


def _float(value: Any) -> float:
    return float(np.ravel(value)[0])


def _square(row: Any, names: set[str], name: str) -> NDArray[np.float64] | None:
    """Return a table of SIP coefficients, `None` if there is none."""
    if name not in names:
        return None
    values = np.asarray(row[name], dtype=np.float64)
    size = round(values.size**0.5)
    return values.reshape(size, size)


_READERS: Final[dict[str, Callable[[fits.HDUList], Any]]] = {
    "image": lambda hdus: _pixels(hdus, "IMAGE"),
    "mask": lambda hdus: _pixels(hdus, "MASK"),
    "variance": lambda hdus: _pixels(hdus, "VARIANCE"),
    "wcs": _read_wcs,
    "psf": _read_psf,
    "info": _read_info,
    "unit": _unit,
    "shape": _shape,
}
