"""Calibs from the bias, dark and flat frames of a night, certified with their validity."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from lsst.daf.butler import Butler, CollectionType, DatasetRef, Timespan

from prompt_processing.domain import collections
from prompt_processing.domain.errors import NoCalibError
from prompt_processing.images.amplifier import Amplifier
from prompt_processing.images.calibs import (
    combine_bias,
    combine_dark,
    combine_flat,
    find_defects,
    photon_transfer,
)
from prompt_processing.images.isr import subtract_overscan
from prompt_processing.instruments.ingest import day_timespan
from prompt_processing.instruments.raw import read_raw
from prompt_processing.repository.central import open_central
from prompt_processing.repository.raws import DescribedRaw, describe_raws

Progress = Callable[[str, int, int], None]

MAX_FRAMES: Final = 12
"""Frames of one kind that are combined: more take time and add little."""
_SAME_LEVEL: Final = 0.1
"""Two flats make a pair if their levels differ by less than this part."""


@dataclass(frozen=True, slots=True)
class CalibRaws:
    """The calibration frames of one detector."""

    instrument: str
    detector: int
    frames: list[DescribedRaw]

    @property
    def day_obs(self) -> int:
        """The last observing day of the frames."""
        return max(int(frame.info["day_obs"]) for frame in self.frames)

    @property
    def filters(self) -> list[str]:
        """Physical filters of the flats."""
        return sorted({str(frame.info["physical_filter"]) for frame in self.of("flat")})

    def of(self, kind: str, physical_filter: str | None = None) -> list[DescribedRaw]:
        """Return the frames of a kind (``bias``, ``dark``, ``flat``), of one filter if it is given.

        Raises
        ------
        NoCalibError
            If there is none.
        """
        found = [
            frame
            for frame in self.frames
            if frame.info["observation_type"] == kind
            and physical_filter in {None, frame.info["physical_filter"]}
        ]
        if not found:
            folders = sorted({str(frame.path.parent.parent) for frame in self.frames})
            raise NoCalibError(f"{', '.join(folders)}: there is no {kind} frame of detector {self.detector}")
        return found[:MAX_FRAMES]


def build_calibs(repo: Path, night: Path, *, progress: Progress) -> None:
    """Build bias, dark, flats, gains and defects from ``NIGHT/calib`` and certify them; safe to repeat.

    They are valid from their observing day on, until newer ones are; the oldest ones are valid for all time
    before as well.

    Parameters
    ----------
    repo
        Folder of the repository.
    night
        Folder of the night.
    progress
        Called with the stage, the frames that were read and their number.

    Raises
    ------
    RepositoryError
        If there is no repository, or no raw.
    NoCalibError
        If frames of a kind are missing, or gains cannot be measured.
    RawError
        If a raw cannot be read.
    """
    frames = describe_raws(night / "calib")

    def detector(frame: DescribedRaw) -> tuple[str, int]:
        return frame.info["instrument"], frame.info["detector"]

    with open_central(repo) as butler:
        for (instrument, number), members in groupby(sorted(frames, key=detector), key=detector):
            _build(butler, CalibRaws(instrument, number, list(members)), progress)


def _build(butler: Butler, frames: CalibRaws, progress: Progress) -> None:
    names = [f"{frame.info['obs_id']} {frame.path.stat().st_size}" for frame in frames.frames]
    version = f"{frames.day_obs}-{frames.detector}-{collections.fingerprint(*names)}"
    run = collections.version_run(collections.calibs(frames.instrument), version)
    butler.collections.register(run, CollectionType.RUN)
    refs = [
        ref
        for name in ("bias", "dark", "flat", "defects", "ptc")
        for ref in butler.query_datasets(name, collections=run, explain=False)
    ]
    if not refs:
        with butler.transaction():
            refs = [
                butler.put(value, name, data_id, run=run)
                for name, data_id, value in _make(frames, _Counter(frames, progress))
            ]
    for ref in refs:
        _certify(butler, ref)


class _Counter:
    """Reads frames, and tells how many were read."""

    def __init__(self, frames: CalibRaws, progress: Progress) -> None:
        self._progress = progress
        flats = len(frames.of("flat"))
        self._total = len(frames.of("bias")) + len(frames.of("dark")) + 2 * flats
        self._done = 0

    def read(self, frame: DescribedRaw) -> list[Amplifier]:
        """Return the amplifiers of a frame."""
        amplifiers = read_raw(frame.path).amplifiers
        self._done += 1
        self._progress("calibs", self._done, self._total)
        return amplifiers


def _make(frames: CalibRaws, source: _Counter) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield dataset type, data id and content of every calib of a detector."""
    data_id = {"instrument": frames.instrument, "detector": frames.detector}
    bias = combine_bias(source.read(frame) for frame in frames.of("bias"))
    yield "bias", data_id, bias
    noises = photon_transfer(_flat_pairs(frames, source))
    gains = {name: noise.gain for name, noise in noises.items()}
    read_noises = {name: noise.read_noise for name, noise in noises.items()}
    yield "ptc", data_id, {"gain": gains, "read_noise": read_noises, "shape": list(bias.shape)}
    darks = ((source.read(frame), _dark_time(frame)) for frame in frames.of("dark"))
    dark = combine_dark(darks, bias=bias, gains=gains)
    yield "dark", data_id, dark
    defects = np.zeros(bias.shape, dtype=bool)
    for physical_filter in frames.filters:
        flats = ((source.read(frame), _dark_time(frame)) for frame in frames.of("flat", physical_filter))
        flat = combine_flat(flats, bias=bias, dark=dark, gains=gains)
        defects |= find_defects(dark, flat)
        yield "flat", {**data_id, "physical_filter": physical_filter}, flat
    yield "defects", data_id, defects


def _dark_time(frame: DescribedRaw) -> float:
    """Return the time in which dark current was collected [s].

    Raises
    ------
    NoCalibError
        If a dark has none.
    """
    seconds = float(frame.info["dark_time"])
    if frame.info["observation_type"] == "dark" and seconds <= 0:
        raise NoCalibError(f"{frame.path}: a dark of {seconds} s")
    return seconds


def _flat_pairs(frames: CalibRaws, source: _Counter) -> Iterator[tuple[list[Amplifier], list[Amplifier]]]:
    """Yield pairs of consecutive flats of one filter and level; one pair is in memory at a time."""
    for physical_filter in frames.filters:
        previous: list[Amplifier] | None = None
        for frame in frames.of("flat", physical_filter):
            current = source.read(frame)
            if previous is not None and _same_level(previous, current):
                yield previous, current
                previous = None
            else:
                previous = current


def _same_level(one: list[Amplifier], other: list[Amplifier]) -> bool:
    """Tell whether two flats are about equally bright."""
    levels = [float(np.median(subtract_overscan(amplifiers[0]))) for amplifiers in (one, other)]
    return abs(levels[0] - levels[1]) < _SAME_LEVEL * max(levels)


def _certify(butler: Butler, ref: DatasetRef) -> None:
    """Let a calib be valid from its day until the next newer one is, in place of what was valid then."""
    collection = collections.calibs(str(ref.dataId["instrument"]))
    standing = {
        association.ref
        for association in butler.registry.queryDatasetAssociations(
            ref.datasetType, collections=collection, collectionTypes={CollectionType.CALIBRATION}
        )
        if association.ref.dataId == ref.dataId
    }
    day = _day_of(ref)
    days = {_day_of(other) for other in standing - {ref}}
    later = min((other for other in days if other > day), default=None)
    validity = Timespan(
        day_timespan(day).begin if any(other < day for other in days) else None,
        None if later is None else day_timespan(later).begin,
    )
    with butler.transaction():
        if standing:
            butler.registry.decertify(collection, ref.datasetType, validity, dataIds=[ref.dataId])
        butler.registry.certify(collection, [ref], validity)


def _day_of(ref: DatasetRef) -> int:
    """Return the observing day of a calib, with which the name of its run begins."""
    return int(ref.run.rpartition("/")[2].partition("-")[0])
