"""Making a simulated night: everything in the folder of a night, each file once."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table, vstack

from prompt_processing.domain.errors import ConfigError, ConflictError
from prompt_processing.simulation import truth
from prompt_processing.simulation.camera import partial_name, write_raw
from prompt_processing.simulation.cameras import LATISS, SimulatedDetector, simulated_detectors
from prompt_processing.simulation.cosmic_rays import add_cosmic_rays, draw_cosmic_rays
from prompt_processing.simulation.detector import (
    Electronics,
    PixelMaps,
    bleed,
    collect,
    make_electronics,
    make_pixel_maps,
    read_out,
)
from prompt_processing.simulation.events import events_lines
from prompt_processing.simulation.frames import Frame, plan_frames
from prompt_processing.simulation.headers import raw_header
from prompt_processing.simulation.profiles import Profile, Size, profile_of, stream
from prompt_processing.simulation.render import Points, StaticSky, expected_light
from prompt_processing.simulation.sky import Scene, make_refcat, make_scene
from prompt_processing.simulation.transients import VisitChanges, plan_changes

Progress = Callable[[str, int, int], None]
_PROCESSES: Final = 2
_NOTHING: Final = Points(np.zeros(0), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, slots=True)
class NightSummary:
    """What `simulate_night` made."""

    night: Path
    instrument: str
    seed: int
    size: Size
    day_obs: int
    """Observing day of the science visits."""
    visits: tuple[str, ...]
    """Observation ids of the science visits."""
    detectors: tuple[str, ...]
    """Names of the detectors."""
    transients: tuple[int, ...]
    """Number of transients in each visit, on all detectors together."""
    files_written: int
    files_kept: int
    """Files that were there already."""


def simulate_night(
    night: Path,
    *,
    instrument: str = LATISS.instrument,
    detectors: Sequence[int] = (),
    seed: int,
    visits: int = 3,
    size: Size,
    progress: Progress | None = None,
) -> NightSummary:
    """Make a simulated night, or complete one.

    The content depends on the arguments only. Files that are there are left alone, so that an interrupted
    simulation can be continued; every file gets its name when it is complete.

    Parameters
    ----------
    night : `pathlib.Path`
        Folder of the night; made if it does not exist.
    instrument : `str`, optional
        ``LATISS`` or ``LSSTCam``.
    detectors : `~collections.abc.Sequence` [`int`], optional
        Numbers of the detectors; the one at the boresight if none is given.
    seed : `int`
        Not negative; decides everything that is random, and the date and the field.
    visits : `int`, optional
        Number of science visits.
    size : `str`
        ``full`` (4072 x 4000 pixels) or ``small`` (640 x 600 pixels, fewer stars and transients).
    progress : `~collections.abc.Callable`, optional
        Called with what is being made, how many are done, and how many there are.

    Returns
    -------
    summary : `NightSummary`
        What the night holds.

    Raises
    ------
    ConfigError
        If an argument makes no sense.
    ConflictError
        If the folder holds something else.
    """
    night = Path(night)
    _check(seed, visits, size)
    chosen = simulated_detectors(instrument, detectors)
    arguments: dict[str, Any] = {"instrument": instrument, "seed": seed, "visits": visits, "size": size}
    if instrument != LATISS.instrument:
        arguments["detectors"] = [detector.number for detector in chosen]
    _claim(night, arguments)
    plans = [_plan(size, seed, visits, detector) for detector in chosen]
    texts = dict(_common_texts(plans, night))
    for plan in plans:
        texts |= dict(_texts(plan, night))
    all_jobs = [job for plan in plans for job in _jobs(plan, night, size)]
    jobs = [job for job in all_jobs if not job.path.exists()]
    missing = [path for path in texts if not path.exists()]
    total = len(jobs) + len(missing)
    done = 0
    for _ in _run(jobs, parallel=size == "full"):
        done += 1
        _tell(progress, "raws", done, total)
    for path in missing:
        _write_text(path, texts[path]())
        done += 1
        _tell(progress, "tables", done, total)
    science = [frame for frame in plans[0].frames if frame.kind == "science"]
    return NightSummary(
        night=night,
        instrument=instrument,
        seed=seed,
        size=size,
        day_obs=science[0].day_obs,
        visits=tuple(frame.obs_id for frame in science),
        detectors=tuple(detector.name for detector in chosen),
        transients=tuple(
            sum(len(plan.changes[frame.obs_id].transients) for plan in plans) for frame in science
        ),
        files_written=total,
        files_kept=len(texts) + len(all_jobs) - total,
    )


def _check(seed: int, visits: int, size: str) -> None:
    if size not in get_args(Size):
        raise ConfigError(f"size {size!r} is none of {', '.join(get_args(Size))}")
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative")
    if visits < 1:
        raise ConfigError(f"a night of {visits} visits has nothing to see")


def _claim(night: Path, arguments: dict[str, Any]) -> None:
    """Write down what a folder is for, or check that it is for the same."""
    path = night / "truth" / "simulation.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != arguments:
            raise ConflictError(f"{night} holds another simulated night: {found}, asked for {arguments}")
    elif night.exists() and any(night.iterdir()):
        raise ConflictError(f"{night} is not empty and not a simulated night")
    else:
        _write_text(path, json.dumps(arguments, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything about a night on one detector but its pixels."""

    detector: SimulatedDetector
    profile: Profile
    seed: int
    """Of this detector."""
    frames: list[Frame]
    electronics: Electronics
    scene: Scene
    statics: dict[str, StaticSky]
    """By observation id: the scene in template and science exposures."""
    changes: dict[str, VisitChanges]
    """By observation id of the science visits."""


def _plan(size: Size, night_seed: int, visits: int, detector: SimulatedDetector) -> _Plan:
    profile = profile_of(size, detector)
    frames = plan_frames(profile, night_seed, visits, detector)
    seed = detector.seed(night_seed)
    electronics = make_electronics(profile, seed)
    science = [frame for frame in frames if frame.kind == "science"]
    scene = make_scene(profile, seed, science[0].aim.true_ra, science[0].aim.true_dec)
    statics = {frame.obs_id: StaticSky(frame, scene) for frame in frames if frame.pointing}
    templates = [statics[frame.obs_id] for frame in frames if frame.kind == "template"]
    pointed = [statics[frame.obs_id] for frame in science]
    changes = plan_changes(profile, seed, templates, pointed, electronics)
    by_visit = {frame.obs_id: change for frame, change in zip(science, changes, strict=True)}
    return _Plan(detector, profile, seed, frames, electronics, scene, statics, by_visit)


def _rays(profile: Profile, seed: int, frame: Frame) -> Table:
    """Return the cosmic rays of an exposure: the same whenever they are asked for."""
    mean = profile.cosmic_rays * frame.exposure_time
    return draw_cosmic_rays(stream(seed, "cosmic rays", frame.obs_id), frame.shape, mean)


def _common_texts(plans: list[_Plan], night: Path) -> Iterator[tuple[Path, Callable[[], str]]]:
    """Yield the files that all detectors share, with what makes their content."""
    science = [frame for frame in plans[0].frames if frame.kind == "science"]
    yield night / "refcat.ecsv", lambda: _ecsv(_refcat(plans))
    yield night / "events.jsonl", lambda: events_lines(science)


def _refcat(plans: list[_Plan]) -> Table:
    """Return the reference catalogue: of each detector's stars those that no other detector is nearer to."""
    centres = SkyCoord([_centre(plan) for plan in plans], unit="deg")
    parts = []
    for number, plan in enumerate(plans):
        part = make_refcat(plan.scene, plan.profile, plan.seed)
        if len(plans) > 1:
            stars = SkyCoord(part["ra"], part["dec"], unit="deg")
            nearest = np.argmin([centre.separation(stars).deg for centre in centres], axis=0)
            part = part[nearest == number]
        parts.append(part)
    table = vstack(parts, metadata_conflicts="silent") if len(parts) > 1 else parts[0]
    table["id"] = np.arange(len(table), dtype=np.int64) + 1_000_000
    return table


def _centre(plan: _Plan) -> tuple[float, float]:
    first = next(frame for frame in plan.frames if frame.kind == "science")
    return first.aim.true_ra, first.aim.true_dec


def _texts(plan: _Plan, night: Path) -> Iterator[tuple[Path, Callable[[], str]]]:
    """Yield every file about one detector that is not a raw, with what makes its content."""
    folder = plan.detector.truth(night)
    yield folder / "exposures.ecsv", lambda: _ecsv(truth.exposures_table(plan.frames))
    yield folder / "amplifiers.ecsv", lambda: _ecsv(truth.amplifiers_table(plan.electronics))
    yield folder / "bad_pixels.ecsv", lambda: _ecsv(truth.bad_pixels_table(plan.electronics))
    yield folder / "galaxies.ecsv", lambda: _ecsv(truth.galaxies_table(plan.scene.galaxies))
    for frame in plan.frames:
        yield frame.sidecar(night), partial(_sidecar, frame)
        for name, table in _tables(plan, frame):
            yield folder / frame.obs_id / f"{name}.ecsv", partial(_made_ecsv, table)


def _tables(plan: _Plan, frame: Frame) -> Iterator[tuple[str, Callable[[], Table]]]:
    """Yield the truth of one exposure."""
    if frame.kind != "bias":
        yield "cosmic_rays", lambda: _rays(plan.profile, plan.seed, frame)
    if frame.pointing:
        yield "stars", lambda: truth.stars_table(plan.statics[frame.obs_id])
    if frame.kind == "science":
        changes = plan.changes[frame.obs_id]
        yield "transients", lambda: truth.transients_table(changes.transients)
        yield "variables", lambda: truth.variables_table(changes.variables)
        yield "moving", lambda: truth.moving_table(changes.moving)
        yield "streaks", lambda: truth.streaks_table(frame)


def _sidecar(frame: Frame) -> str:
    return json.dumps({"GROUPID": frame.group}) + "\n"


def _made_ecsv(make: Callable[[], Table]) -> str:
    return _ecsv(make())


def _ecsv(table: Table) -> str:
    text = StringIO()
    table.write(text, format="ascii.ecsv")
    return text.getvalue()


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = partial_name(path)
    incomplete.write_text(text)
    incomplete.replace(path)


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)


@dataclass(frozen=True, slots=True)
class _Job:
    """All that a process needs to make one raw."""

    path: Path
    size: Size
    seed: int
    """Of the detector."""
    frame: Frame
    scene: Scene | None
    changes: Points


def _jobs(plan: _Plan, night: Path, size: Size) -> Iterator[_Job]:
    for frame in plan.frames:
        changes = plan.changes[frame.obs_id].points if frame.kind == "science" else _NOTHING
        scene = plan.scene if frame.pointing else None
        yield _Job(frame.path(night), size, plan.seed, frame, scene, changes)


def _run(jobs: list[_Job], *, parallel: bool) -> Iterator[None]:
    """Do all jobs; with small images a second process costs more than it saves."""
    if not parallel or len(jobs) < _PROCESSES:
        for job in jobs:
            _make_raw(job)
            yield
        return
    # The longest first, so that both processes end at about the same time.
    jobs = sorted(jobs, key=lambda job: job.scene is None)
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_make_raw, job) for job in jobs]):
            future.result()
            yield


@lru_cache(maxsize=1)
def _detector(size: Size, seed: int, detector: SimulatedDetector) -> tuple[Electronics, PixelMaps]:
    electronics = make_electronics(profile_of(size, detector), seed)
    return electronics, make_pixel_maps(electronics, seed)


def _make_raw(job: _Job) -> None:
    """Expose, read out and write one raw."""
    frame, profile = job.frame, profile_of(job.size, job.frame.detector)
    electronics, maps = _detector(job.size, job.seed, frame.detector)
    rng = stream(job.seed, "exposure", frame.obs_id)
    charge = None
    if frame.kind != "bias":
        light = None
        if job.scene is not None:
            light = expected_light(StaticSky(frame, job.scene), job.changes)
        elif frame.level:
            light = np.full(frame.shape, frame.level, dtype=np.float32)
        charge = collect(light, frame.dark_time, maps, rng)
        add_cosmic_rays(charge, _rays(profile, job.seed, frame))
        bleed(charge)
    amplifiers = read_out(charge, electronics, maps, rng)
    write_raw(job.path, raw_header(frame), profile.layout, amplifiers, compress=frame.compressed)
