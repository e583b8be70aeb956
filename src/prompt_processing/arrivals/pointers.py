"""Noting which raw arrived for which visit: the only writer of arrival pointers."""

import io
import warnings
from typing import Any, Final

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from lsst.resources import ResourcePath

from prompt_processing.domain.clock import Clock
from prompt_processing.domain.errors import HeaderError, RawError, StoreError
from prompt_processing.domain.identity import raw_group, raw_identity
from prompt_processing.domain.ids import exposure_id, parse_obs_id
from prompt_processing.domain.raws import (
    SIDECAR_BYTES,
    ArrivalPointer,
    RawKey,
    first_visit_path,
    parse_raw_key,
    pointer_path,
)
from prompt_processing.domain.visit import DetectorVisit
from prompt_processing.instruments.cameras import CAMERAS
from prompt_processing.storage import object_store

HEADER_BYTES: Final = 256 * 1024
"""How much of a raw is read for its primary header; those of the cameras have some 30 kB."""


class Arrivals:
    """The pointers of one landing store.

    Parameters
    ----------
    incoming
        Root of the landing store.
    pointers
        Root of the pointers; must not be inside the landing store.
    clock
        Tells when a raw was seen.
    """

    def __init__(self, incoming: ResourcePath, pointers: ResourcePath, clock: Clock) -> None:
        self._incoming = incoming
        self._pointers = pointers
        self._clock = clock
        # Keys that were dealt with, with the version of the object: a raw that was broken may be replaced.
        self._seen: dict[str, int] = {}

    def record(self, key: str) -> ArrivalPointer | None:
        """Write the pointer of a raw that is in the landing store; safe to repeat.

        Group and snap are those of `prompt_processing.domain.identity`. A raw whose header cannot be read but
        whose sidecar names its group gets a pointer as snap 0, so that its visit ends with what is wrong with
        the file instead of waiting for an image in vain.

        Parameters
        ----------
        key
            Key relative to the root of the landing store.

        Returns
        -------
        pointer
            The pointer that stands for that snap; if another raw came first, it is that one's. `None` if the
            key is not that of a raw.

        Raises
        ------
        RawError
            If there is no such raw, or it does not tell its group or its number.
        StoreError
            If a store does not answer.
        """
        raw = parse_raw_key(key)
        if raw is None:
            return None
        detector = detector_number(raw)
        path = object_store.child(self._incoming, key)
        found = object_store.stat(path)
        if found is None:
            raise RawError(f"{path}: there is no such raw")
        try:
            group, snap = self.identify(raw)
        except RawError:
            self._seen[key] = found.generation
            raise
        pointer = ArrivalPointer(
            key=key,
            generation=found.generation,
            size=found.size,
            exposure_id=exposure_id(parse_obs_id(raw.obs_id)),
            obs_id=raw.obs_id,
            group=group,
            snap=snap,
            arrived_at=self._clock.now().utc.isot,
        )
        # A pointer from before keys named the day still stands.
        first = self._find(f"{first_visit_path(raw.instrument, group, detector)}/{snap}.json")
        standing = first or self._create(pointer, raw, detector)
        self._seen[key] = found.generation
        return standing

    def forget(self, key: str) -> None:
        """Let `list_new` list a raw again, because noting it elsewhere has failed."""
        self._seen.pop(key, None)

    def exists(self, key: str) -> bool:
        """Tell whether there is an object of some key in the landing store.

        Raises
        ------
        StoreError
            If the store does not answer.
        """
        return object_store.stat(object_store.child(self._incoming, key)) is not None

    def list_new(self, prefix: str = "") -> list[str]:
        """Return the keys of raws that this object has not recorded yet, in order.

        A raw that could not be recorded is listed again only when its object has changed.

        Parameters
        ----------
        prefix
            Limits the listing, for example ``LATISS/20260315``.

        Raises
        ------
        StoreError
            If the store does not answer.
        """
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        store = object_store.child(self._incoming, start.rstrip("/")) if start else self._incoming
        found = ((start + entry.key, entry.generation) for entry in object_store.list_entries(store))
        return [
            key
            for key, generation in found
            if self._seen.get(key) != generation and parse_raw_key(key) is not None
        ]

    def find(self, visit: DetectorVisit, snap: int) -> ArrivalPointer | None:
        """Return the pointer of one snap of a visit, or `None` if it has not arrived.

        Looks under each of `DetectorVisit.paths`.

        Parameters
        ----------
        visit
            The unit of work.
        snap
            Number of the image within the visit, from 0.

        Raises
        ------
        RawError
            If the pointer cannot be understood.
        StoreError
            If the store does not answer.
        """
        found = (self._find(f"{path}/{snap}.json") for path in visit.paths)
        return next((pointer for pointer in found if pointer is not None), None)

    def find_all(self, visit: DetectorVisit) -> list[ArrivalPointer]:
        """Return the pointers of all snaps of a visit that have arrived, in their order.

        Raises
        ------
        RawError
            If a pointer cannot be understood.
        StoreError
            If the store does not answer.
        """
        found: dict[int, ArrivalPointer] = {}
        for path in visit.paths:
            folder = object_store.root(object_store.child(self._pointers, path))
            for name in object_store.list_after(folder):
                pointer = self._read(object_store.child(folder, name))
                found.setdefault(pointer.snap, pointer)
        return [found[snap] for snap in sorted(found)]

    def _create(self, pointer: ArrivalPointer, raw: RawKey, detector: int) -> ArrivalPointer:
        """Write a pointer, and return the one that stands."""
        path = pointer_path(raw.instrument, raw.day_obs, pointer.group, detector, pointer.snap)
        place = object_store.child(self._pointers, path)
        return pointer if object_store.create(place, pointer.to_json()) else self._read(place)

    def _find(self, key: str) -> ArrivalPointer | None:
        place = object_store.child(self._pointers, key)
        data = object_store.read(place)
        return None if data is None else ArrivalPointer.from_json(data, str(place))

    def _read(self, place: ResourcePath) -> ArrivalPointer:
        data = object_store.read(place)
        if data is None:
            raise StoreError(f"{place}: the arrival pointer has vanished")
        return ArrivalPointer.from_json(data, str(place))

    def identify(self, raw: RawKey) -> tuple[str, int]:
        """Return group and snap of a raw, from its sidecar and its header.

        Raises
        ------
        RawError
            If they do not tell, or there is no such raw.
        StoreError
            If the store does not answer.
        """
        path = object_store.child(self._incoming, str(raw))
        sidecar = object_store.read_start(object_store.child(self._incoming, raw.sidecar), SIDECAR_BYTES + 1)
        try:
            cards = _read_cards(path, "GROUPID", "CURINDEX")
        except RawError:
            if raw_group(None, sidecar) is None:
                raise
            cards = None
        try:
            group, snap = raw_identity(cards, sidecar)
        except HeaderError as error:
            raise HeaderError(f"{path}: {error}") from error
        if group is None:
            raise HeaderError(
                f"{path}: card GROUPID is missing, and no sidecar {raw.sidecar} names the group"
            )
        return group, snap


def detector_number(raw: RawKey) -> int:
    """Return the number of the detector that a raw is of.

    Raises
    ------
    RawError
        If the instrument or the detector is not known.
    """
    camera = CAMERAS.get(raw.instrument)
    number = None if camera is None else camera.number_of(raw.detector_name)
    if number is None:
        raise RawError(f"{raw}: instrument {raw.instrument} has no detector {raw.detector_name}")
    return number


def _read_cards(path: ResourcePath, *names: str) -> dict[str, Any]:
    """Return those cards of the primary header of a raw that have a value.

    Raises
    ------
    RawError
        If it is gone, not FITS, or ends within the header.
    StoreError
        If the store does not answer.
    """
    start = object_store.read_start(path, HEADER_BYTES)
    if start is None:
        raise RawError(f"{path}: there is no such raw")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            header = fits.Header.fromfile(io.BytesIO(start), endcard=True)
            values = {name: header.get(name) for name in names}
    except (OSError, EOFError, ValueError, TypeError, IndexError, fits.VerifyError) as error:
        raise RawError(f"{path}: not a readable FITS file ({error})") from error
    return {name: value for name, value in values.items() if not isinstance(value, fits.card.Undefined)}
