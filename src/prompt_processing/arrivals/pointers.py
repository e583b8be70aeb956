"""Noting which raw arrived for which visit: the only writer of arrival pointers."""

import json
import warnings
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from lsst.resources import ResourcePath

from prompt_processing import objects
from prompt_processing.domain.clock import Clock
from prompt_processing.domain.errors import ConfigError, HeaderError, RawError, StoreError
from prompt_processing.domain.ids import exposure_id, parse_obs_id
from prompt_processing.domain.raws import ArrivalPointer, RawKey, parse_raw_key, pointer_path, visit_path
from prompt_processing.domain.visit import DetectorVisitKey
from prompt_processing.instruments.cameras import CAMERAS


class Arrivals:
    """The pointers of one landing store.

    Parameters
    ----------
    incoming
        Root of the landing store, a folder.
    pointers
        Root of the pointers; must not be inside the landing store.
    clock
        Tells when a raw was seen.

    Raises
    ------
    ConfigError
        If the landing store is not a folder.
    """

    def __init__(self, incoming: ResourcePath, pointers: ResourcePath, clock: Clock) -> None:
        if not incoming.isLocal:
            raise ConfigError(f"{incoming}: a landing store must be a folder")
        self._incoming = incoming
        self._pointers = pointers
        self._clock = clock
        # Keys that were dealt with, with the version of the object: a raw that was broken may be replaced.
        self._seen: dict[str, int] = {}

    def record(self, key: str) -> ArrivalPointer | None:
        """Write the pointer of a raw that is in the landing store; safe to repeat.

        The group comes from the sidecar, else from the card ``GROUPID``; the snap is ``CURINDEX`` - 1. A raw
        whose header cannot be read but whose sidecar names its group gets a pointer as snap 0, so that its
        visit ends with what is wrong with the file instead of waiting for an image in vain.

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
        path = objects.child(self._incoming, key)
        size, generation = _version(path)
        try:
            group, snap = self._identify(raw, path)
        except RawError:
            self._seen[key] = generation
            raise
        pointer = ArrivalPointer(
            key=key,
            generation=generation,
            size=size,
            exposure_id=exposure_id(parse_obs_id(raw.obs_id)),
            obs_id=raw.obs_id,
            group=group,
            snap=snap,
            arrived_at=self._clock.now().utc.isot,
        )
        place = objects.child(self._pointers, pointer_path(raw.instrument, group, detector, snap))
        standing = pointer if objects.create(place, pointer.to_json()) else self._read(place)
        self._seen[key] = generation
        return standing

    def forget(self, key: str) -> None:
        """Let `list_new` list a raw again, because noting it elsewhere has failed."""
        self._seen.pop(key, None)

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
        store = objects.child(self._incoming, start.rstrip("/")) if start else self._incoming
        keys = [start + key for key in objects.list_after(objects.root(store))]
        return [key for key in keys if parse_raw_key(key) is not None and self._is_new(key)]

    def find(self, visit: DetectorVisitKey, snap: int) -> ArrivalPointer | None:
        """Return the pointer of one snap of a visit, or `None` if it has not arrived.

        Raises
        ------
        RawError
            If the pointer cannot be understood.
        StoreError
            If the store does not answer.
        """
        place = objects.child(self._pointers, pointer_path(*visit, snap))
        data = objects.read(place)
        return None if data is None else ArrivalPointer.from_json(data, str(place))

    def find_all(self, visit: DetectorVisitKey) -> list[ArrivalPointer]:
        """Return the pointers of all snaps of a visit that have arrived, in their order.

        Raises
        ------
        RawError
            If a pointer cannot be understood.
        StoreError
            If the store does not answer.
        """
        folder = objects.root(objects.child(self._pointers, visit_path(*visit)))
        found = [self._read(objects.child(folder, name)) for name in objects.list_after(folder)]
        return sorted(found, key=lambda pointer: pointer.snap)

    def _read(self, place: ResourcePath) -> ArrivalPointer:
        data = objects.read(place)
        if data is None:
            raise StoreError(f"{place}: the arrival pointer has vanished")
        return ArrivalPointer.from_json(data, str(place))

    def _is_new(self, key: str) -> bool:
        if key not in self._seen:
            return True
        try:
            return _version(objects.child(self._incoming, key))[1] != self._seen[key]
        except RawError:
            # It was taken away since it was listed.
            return False

    def _identify(self, raw: RawKey, path: ResourcePath) -> tuple[str, int]:
        """Return group and snap of a raw."""
        told = self._sidecar_group(raw)
        try:
            header = _read_header(path)
        except RawError:
            if told is None:
                raise
            return told, 0
        card = header.get("GROUPID")
        group = told or (card.strip() if isinstance(card, str) else "")
        if not group:
            raise HeaderError(f"{path}: card GROUPID is missing, and there is no sidecar {raw.sidecar}")
        index = header.get("CURINDEX")
        if index is None or isinstance(index, fits.card.Undefined):
            return group, 0
        if not isinstance(index, int) or isinstance(index, bool) or index < 1:
            raise HeaderError(f"{path}: card CURINDEX is {index!r}, not a number from 1")
        return group, index - 1

    def _sidecar_group(self, raw: RawKey) -> str | None:
        """Return the group that the sidecar names; a sidecar that cannot be read is as good as none."""
        data = objects.read(objects.child(self._incoming, raw.sidecar))
        try:
            content: Any = json.loads(data) if data is not None else None
        except ValueError:
            return None
        group = content.get("GROUPID") if isinstance(content, dict) else None
        return group.strip() or None if isinstance(group, str) else None


def detector_number(raw: RawKey) -> int:
    """Return the number of the detector that a raw is of.

    Raises
    ------
    RawError
        If the instrument or the detector is not known.
    """
    camera = CAMERAS.get(raw.instrument)
    number = None if camera is None else camera().number_of(raw.detector_name)
    if number is None:
        raise RawError(f"{raw}: instrument {raw.instrument} has no detector {raw.detector_name}")
    return number


def _version(path: ResourcePath) -> tuple[int, int]:
    """Return size [bytes] and version of a raw in a folder."""
    try:
        status = Path(path.ospath).stat()
    except FileNotFoundError as error:
        raise RawError(f"{path}: there is no such raw") from error
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error
    return status.st_size, status.st_mtime_ns


def _read_header(path: ResourcePath) -> fits.Header:
    """Return the primary header of a raw.

    Raises
    ------
    RawError
        If it is not FITS, or ends within the header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            return fits.getheader(path.ospath, 0)
    except (OSError, ValueError, TypeError, IndexError, fits.VerifyError) as error:
        raise RawError(f"{path}: not a readable FITS file ({error})") from error
