"""All-sky maps of yes and no, in the HEALPix pixelisation."""

from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema


class SkyMap:
    """A map that tells for every pixel of the sky whether it belongs to a field.

    Parameters
    ----------
    file
        FITS file with a table of implicit index (the form that ``healpy.write_map`` writes), whose first
        column holds whole numbers or booleans, in equatorial coordinates: what is not 0 belongs.

    Raises
    ------
    ValueError
        If it is no such file, or no pixel belongs.

    Notes
    -----
    Górski et al. 2005, ApJ 622, 759.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with fits.open(file) as hdus:
                header, table = hdus[1].header, hdus[1].data
                self._nested = str(header["ORDERING"]).strip().upper().startswith("NEST")
                self._nside = int(header["NSIDE"])
                system = str(header.get("COORDSYS", "C")).strip().upper()[:1]
                values = np.asarray(table.field(0)).ravel()
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no HEALPix map: {error}") from error
        if values.size != 12 * self._nside**2:
            raise ValueError(f"{file}: {values.size} pixels are not the whole sky at NSIDE {self._nside}")
        if values.dtype.kind not in "biu":
            raise ValueError(f"{file}: the first column must hold whole numbers or booleans")
        if system != "C":
            raise ValueError(f"{file}: COORDSYS is {system}, not C (equatorial)")
        self._inside: NDArray[np.bool_] = values.astype(bool)
        if not self._inside.any():
            raise ValueError(f"{file}: no pixel of the map is set")

    def contains(self, ra: float, dec: float) -> bool:
        """Tell whether a position, ICRS [deg], belongs to the field."""
        return bool(self._inside[hpgeom.angle_to_pixel(self._nside, ra, dec, nest=self._nested)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SkyMap) and self.file == other.file

    def __hash__(self) -> int:
        return hash(self.file)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Read a map where a settings file names one; ``context["folder"]`` is the folder of that file."""
        del source, handler

        def read(value: Any, info: core_schema.ValidationInfo) -> SkyMap:
            return cls(Path((info.context or {}).get("folder", "."), str(value)))

        return core_schema.with_info_plain_validator_function(read)
