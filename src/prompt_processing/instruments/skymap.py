"""The project's skymap: tracts in rings of declination, each a tangent plane of square patches.

The sky is cut into 180 rings of 1 deg of declination, and each ring into cells of equal width in right
ascension, as many as keep a cell at most 1 deg wide where it is widest. Every cell belongs to one tract: a
tangent plane at the cell's centre, north up and east left, 0.1 arcsec per pixel, of 26 x 26 patches of
1500 pixels (65 arcmin), which covers the cell with a margin. A patch is stored with a border of 50 pixels on
each side, so that neighbours overlap.

A repository holds the rows of those patches only that are needed; ids and geometry are fixed by the name of
the skymap and its hash. The idea of rings is that of Rubin's ``RingsSkyMap``; the geometry is our own.
"""

import bisect
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
from astropy.wcs import WCS
from lsst.daf.butler import Butler
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d
from numpy.typing import NDArray

from prompt_processing.domain.errors import RepositoryError
from prompt_processing.instruments.regions import sky_polygon

_MARGIN: Final = 1e-6
"""Margin of a region for rounding [deg]."""


@dataclass(frozen=True, slots=True, order=True)
class Patch:
    """One patch of the skymap."""

    tract: int
    patch: int


@dataclass(frozen=True)
class RingSkyMap:
    """A skymap of rings; the defaults are the project's one skymap, `SKYMAP`."""

    name: str = "rings_v1"
    rings: int = 180
    """Rings of declination from pole to pole."""
    patches: int = 26
    """Patches along each side of a tract."""
    patch_inner: int = 1500
    """Side of a patch without its border [px]."""
    patch_border: int = 50
    """Border on each side of a patch [px]."""
    pixel_scale: float = 0.1
    """Pixel scale at a tract's centre [arcsec]."""

    @property
    def config(self) -> dict[str, Any]:
        """Everything that fixes the geometry, as JSON values: the dataset ``skyMap``."""
        return asdict(self)

    @property
    def sha1(self) -> bytes:
        """Hash of the configuration, 20 bytes, the same on every machine."""
        return hashlib.sha1(json.dumps(self.config, sort_keys=True).encode(), usedforsecurity=False).digest()

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Shape ``(ny, nx)`` of a patch with its border."""
        side = self.patch_inner + 2 * self.patch_border
        return side, side

    @property
    def n_tracts(self) -> int:
        """Number of tracts on the whole sky."""
        return self._first[-1]

    def tract_at(self, ra: float, dec: float) -> int:
        """Return the tract whose cell contains a position.

        Parameters
        ----------
        ra, dec
            Position, ICRS [deg].

        Returns
        -------
        tract
            Number of the tract.
        """
        ring = self._ring(dec)
        cells = self._cells[ring]
        return self._first[ring] + min(int(ra % 360.0 / 360.0 * cells), cells - 1)

    def tract_centre(self, tract: int) -> tuple[float, float]:
        """Return the centre of a tract, ICRS [deg]."""
        ring, cell = self._ring_and_cell(tract)
        return 360.0 * (cell + 0.5) / self._cells[ring], -90.0 + self._height * (ring + 0.5)

    def tract_wcs(self, tract: int) -> WCS:
        """Return the WCS of a tract's plane.

        Parameters
        ----------
        tract
            Number of the tract.

        Returns
        -------
        wcs
            TAN projection; pixel (0, 0) is the first of the inner part of patch 0.
        """
        side = self.patches * self.patch_inner
        return self._wcs(tract, (side + 1) / 2, (side + 1) / 2, side)

    def patch_wcs(self, patch: Patch) -> WCS:
        """Return the WCS of a patch with its border.

        Parameters
        ----------
        patch
            The patch.

        Returns
        -------
        wcs
            TAN projection; call it with origin 0.
        """
        side = self.patches * self.patch_inner
        x, y = (self.patch_inner * index - self.patch_border for index in self.patch_column_row(patch))
        return self._wcs(patch.tract, (side + 1) / 2 - x, (side + 1) / 2 - y, self.patch_shape[0])

    def patch_column_row(self, patch: Patch) -> tuple[int, int]:
        """Return column and row of a patch in its tract."""
        row, column = divmod(patch.patch, self.patches)
        return column, row

    def patch_at(self, ra: float, dec: float) -> Patch:
        """Return the patch whose inner part, without border, contains a position.

        Parameters
        ----------
        ra, dec
            Position, ICRS [deg].

        Returns
        -------
        patch
            A patch of the tract at the position.
        """
        tract = self.tract_at(ra, dec)
        pixel = self.tract_wcs(tract).wcs_world2pix([[ra, dec]], 0)[0]
        column, row = np.clip(np.floor((pixel + 0.5) / self.patch_inner), 0, self.patches - 1).astype(int)
        return Patch(tract, int(row * self.patches + column))

    def tract_region(self, tract: int) -> ConvexPolygon:
        """Return the region that the inner parts of a tract's patches cover."""
        side = self.patches * self.patch_inner
        return _region(self.tract_wcs(tract), (side, side))

    def patch_region(self, patch: Patch) -> ConvexPolygon:
        """Return the region of a patch with its border."""
        return _region(self.patch_wcs(patch), self.patch_shape)

    def tracts_overlapping(self, region: ConvexPolygon) -> list[int]:
        """Return the tracts whose cells touch a region.

        Parameters
        ----------
        region
            Convex region of at most a few degrees.

        Returns
        -------
        tracts
            Numbers of the tracts, ascending.
        """
        latitudes = region.getBoundingBox().getLat()
        south, north = latitudes.getA().asDegrees() - _MARGIN, latitudes.getB().asDegrees() + _MARGIN
        low, high = _right_ascensions(region)
        found: set[int] = set()
        for ring in range(self._ring(south), self._ring(north) + 1):
            width = 360.0 / self._cells[ring]
            cells = range(math.floor(low / width), math.floor(high / width) + 1)
            found.update(self._first[ring] + cell % self._cells[ring] for cell in cells)
        return sorted(found)

    def patches_overlapping(self, region: ConvexPolygon) -> list[Patch]:
        """Return the patches that cover a region.

        These are the patches of each overlapping tract whose inner parts touch the region. Where tracts meet,
        they cover it more than once.

        Parameters
        ----------
        region
            Convex region of at most a few degrees.

        Returns
        -------
        patches
            In order of tract and patch.
        """
        found: list[Patch] = []
        for tract in self.tracts_overlapping(region):
            # On a tangent plane great circles are straight: the region is a convex polygon there as well.
            corners = self.tract_wcs(tract).wcs_world2pix(_corners(region), 0)
            touched = np.flatnonzero(_touch(corners, self._patch_boxes))
            found += [Patch(tract, int(index)) for index in touched]
        return found

    @cached_property
    def _height(self) -> float:
        """Height of a ring [deg]."""
        return 180.0 / self.rings

    @cached_property
    def _cells(self) -> list[int]:
        """Number of cells in each ring."""
        edges = [math.radians(-90.0 + self._height * index) for index in range(self.rings + 1)]
        widest = [max(math.cos(low), math.cos(high)) for low, high in pairwise(edges)]
        # The ring at the equator touches it, or spans it when there is an odd number of rings.
        return [math.ceil(round(360.0 * width / self._height, 9)) for width in widest]

    @cached_property
    def _first(self) -> list[int]:
        """First tract of each ring, and the number of all tracts."""
        return [0, *accumulate(self._cells)]

    @cached_property
    def _patch_boxes(self) -> NDArray[np.float64]:
        """Corners ``x_low, y_low, x_high, y_high`` of the patches without border, in the tract's pixels."""
        row, column = np.divmod(np.arange(self.patches**2), self.patches)
        low = np.stack([column, row], axis=1) * self.patch_inner - 0.5
        return np.concatenate([low, low + self.patch_inner], axis=1)

    def _ring(self, dec: float) -> int:
        return min(max(math.floor((dec + 90.0) / self._height), 0), self.rings - 1)

    def _ring_and_cell(self, tract: int) -> tuple[int, int]:
        if not 0 <= tract < self.n_tracts:
            raise IndexError(f"skymap {self.name} has no tract {tract}")
        ring = bisect.bisect_right(self._first, tract) - 1
        return ring, tract - self._first[ring]

    def _wcs(self, tract: int, crpix1: float, crpix2: float, side: int) -> WCS:
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = self.tract_centre(tract)
        wcs.wcs.crpix = [crpix1, crpix2]
        scale = self.pixel_scale / 3600.0
        wcs.wcs.cd = [[-scale, 0.0], [0.0, scale]]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        wcs.pixel_shape = (side, side)
        return wcs


SKYMAP: Final = RingSkyMap()
"""The skymap of every repository of this project."""


def register_skymap(butler: Butler, skymap: RingSkyMap = SKYMAP) -> None:
    """Insert the row of a skymap; safe to repeat.

    Parameters
    ----------
    butler
        A writeable Butler.
    skymap
        The skymap.

    Raises
    ------
    RepositoryError
        If the repository has another geometry under the name of the skymap.
    """
    row = {
        "name": skymap.name,
        "hash": skymap.sha1,
        "tract_max": skymap.n_tracts,
        "patch_nx_max": skymap.patches,
        "patch_ny_max": skymap.patches,
    }
    try:
        butler.registry.syncDimensionData("skymap", row)
    except ConflictingDefinitionError as error:
        raise RepositoryError(f"skymap {skymap.name} exists with another geometry ({error})") from error


def register_patches(butler: Butler, patches: list[Patch], skymap: RingSkyMap = SKYMAP) -> None:
    """Insert the rows of patches and of their tracts; safe to repeat.

    Parameters
    ----------
    butler
        Writeable Butler with the skymap registered.
    patches
        Patches, for example from `RingSkyMap.patches_overlapping`.
    skymap
        The skymap.
    """
    tracts = [
        {"skymap": skymap.name, "id": tract, "region": skymap.tract_region(tract)}
        for tract in sorted({patch.tract for patch in patches})
    ]
    rows = []
    for patch in sorted(set(patches)):
        column, row = skymap.patch_column_row(patch)
        rows.append(
            {
                "skymap": skymap.name,
                "tract": patch.tract,
                "id": patch.patch,
                "cell_x": column,
                "cell_y": row,
                "region": skymap.patch_region(patch),
            }
        )
    with butler.transaction():
        butler.registry.insertDimensionData("tract", *tracts, skip_existing=True)
        butler.registry.insertDimensionData("patch", *rows, skip_existing=True)


def _region(wcs: WCS, shape: tuple[int, int]) -> ConvexPolygon:
    """Return the region of all pixels of an image."""
    ny, nx = shape
    x = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5])
    y = np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    return sky_polygon(*wcs.wcs_pix2world(x, y, 0))


def _corners(region: ConvexPolygon) -> NDArray[np.float64]:
    """Return the corners of a polygon, shape ``(n, 2)``: ra and dec [deg]."""
    points = [LonLat(vertex) for vertex in region.getVertices()]
    return np.array([[point.getLon().asDegrees(), point.getLat().asDegrees()] for point in points])


def _right_ascensions(region: ConvexPolygon) -> tuple[float, float]:
    """Return the range of right ascension of a region [deg], growing, from below 360 and perhaps beyond.

    Right ascension changes in one direction along a great circle, so the extremes are at corners, unless a
    pole is inside. (The bounding box of ``sphgeom`` has the whole circle as soon as a region crosses 0 deg.)
    """
    if any(region.contains(pole) for pole in (UnitVector3d.Z(), -UnitVector3d.Z())):
        return 0.0, 360.0 - _MARGIN
    ra = _corners(region)[:, 0]
    from_first = (ra - ra[0] + 180.0) % 360.0 - 180.0
    return float(ra[0] + from_first.min() - _MARGIN), float(ra[0] + from_first.max() + _MARGIN)


def _touch(polygon: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which boxes touch a convex polygon (separating axis theorem).

    Parameters
    ----------
    polygon
        Corners in order, shape ``(n, 2)``.
    boxes
        ``x_low, y_low, x_high, y_high``, shape ``(m, 4)``.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    apart = (polygon.max(axis=0) < low).any(axis=1) | (polygon.min(axis=0) > high).any(axis=1)
    centre, half = (low + high) / 2, (high - low) / 2
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        normal = np.array([end[1] - start[1], start[0] - end[0]])
        projected = polygon @ normal
        at, reach = centre @ normal, half @ np.abs(normal)
        apart |= (at + reach < projected.min()) | (at - reach > projected.max())
    return ~apart
