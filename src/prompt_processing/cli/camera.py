"""``prompt camera``: what the observatory does: upload raws, and play a night in real time."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prompt_processing.cli.options import night_argument
from prompt_processing.cli.progress import Progress

if TYPE_CHECKING:
    from prompt_processing.domain.clock import NightClock
    from prompt_processing.night.plan import Action
    from prompt_processing.night.play import Played
    from prompt_processing.night.upload import Uploaded
    from prompt_processing.night.visits import Visit

LSSTCAM = "lsstcam"
FAULTS = {
    "late": "raws that appear when nobody waits for them any more",
    "lost": "raws that never appear",
    "duplicate": "events that are published twice, and images that are uploaded twice",
    "out-of-order": "images that appear before their sidecars, and events with messages in reversed order",
    "truncated": "images of which only the first part appears",
}
"""Names of the faults, as in `prompt_processing.night.plan.Fault`, and their help."""


def parse_cadence(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | str | None:
    """Return a time in seconds, or the name of a cadence."""
    if value is None or value == LSSTCAM:
        return value
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < float("inf"):
        text = f"{value!r} is neither a positive number of seconds nor {LSSTCAM}."
        raise click.BadParameter(text, context, parameter)
    return seconds


def fault_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each fault."""
    for name, text in reversed(FAULTS.items()):
        option = click.option(
            f"--{name}",
            type=click.FloatRange(0.0, 1.0),
            default=0.0,
            metavar="FRACTION",
            help=f"Fault: fraction, from 0 to 1, of {text}.",
        )
        command = option(command)
    return command


def failure(text: str) -> str:
    """Return one line that tells what went wrong; what a store answers may have several."""
    return f"failed: {' '.join(text.split())}"


to_option = click.option(
    "--to", required=True, metavar="STORE", help="Landing store: gs://BUCKET[/PREFIX], or a folder."
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="How many raws to upload at the same time.",
)


@click.group()
def camera() -> None:
    """Upload raws, or play a night in real time."""


@camera.command("upload")
@click.argument(
    "sources", nargs=-1, required=True, metavar="NIGHT|FILE...", type=click.Path(exists=True, path_type=Path)
)
@to_option
@threads_option
@click.pass_context
def camera_upload(context: click.Context, sources: tuple[Path, ...], to: str, threads: int) -> None:
    """Put the raws of nights, or single raws, into a landing store, each after its sidecar.

    The path of a raw must end with INSTRUMENT/DAY_OBS/OBS_ID/OBS_ID_Rxx_Sxx.fits or .fits.fz: this is its key
    in the store. Of a night only the folder raw is uploaded. Nothing in the store is ever overwritten, so an
    upload that was interrupted is continued by the same command. The exit status is 1 if a raw could not be
    uploaded.
    """
    from prompt_processing.night.files import find_raws
    from prompt_processing.night.landing import Landing
    from prompt_processing.night.upload import upload_raws
    from prompt_processing.storage import object_store

    new = there = failed = 0
    with Progress() as progress:
        files = find_raws(sources, progress.line)
        progress("upload", 0, len(files))

        def count(uploaded: "Uploaded") -> None:
            nonlocal new, there, failed
            if uploaded.error is not None:
                failed += 1
                progress.line(failure(str(uploaded.error)))
            elif uploaded.new:
                new += 1
            else:
                there += 1
                progress.line(f"there already: {uploaded.raw}")
            progress("upload", new + there + failed, len(files))

        upload_raws(files, Landing(object_store.root(to)), threads=threads, on_raw=count)
    click.echo(f"{to}: {new} raws uploaded, {there} were there already, {failed} failed")
    context.exit(1 if failed else 0)


@camera.command("play")
@night_argument
@to_option
@click.option(
    "--events",
    required=True,
    metavar="DESTINATION",
    help="Where events go: queue:REPO, pubsub:projects/PROJECT/topics/TOPIC, kafka:REPO (the Kafka of its "
    "settings, for the bridge), stdout or none.",
)
@click.option(
    "--cadence",
    callback=parse_cadence,
    metavar="SECONDS|lsstcam",
    help="From the start of a visit to that of the next; lsstcam: about 34 s, by chance.  "
    "[default: as in the night]",
)
@click.option(
    "--lead",
    type=click.FloatRange(min=0.0),
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="Publish an event at least this long before its shutter opens.",
)
@click.option(
    "--jitter",
    type=click.FloatRange(min=0.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time within which the raws of an image appear.",
)
@click.option(
    "--start-in",
    type=click.FloatRange(min=0.0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Time until the first event is published.",
)
@click.option(
    "--clock-offset",
    type=float,
    metavar="SECONDS",
    help="Clock of the night minus that of the wall, in place of --start-in.",
)
@fault_options
@click.option("--seed", default=0, show_default=True, help="Decides what each fault strikes.")
@threads_option
@click.pass_context
def camera_play(
    context: click.Context,
    /,
    night: Path,
    to: str,
    events: str,
    cadence: float | str | None,
    lead: float,
    jitter: float,
    start_in: float,
    clock_offset: float | None,
    seed: int,
    threads: int,
    **faults: float,
) -> None:
    """Do in real time what scheduler and camera did in NIGHT: publish its events, and let its raws appear.

    It runs on the night's own clock, and prints first what that differs from the wall clock by: the services
    that process the night need the same. A raw appears when it has been read out, 2 s (LATISS) or 2.4 s
    (LSSTCam) after its shutter has closed, its sidecar before its image. Nothing in the store is overwritten:
    to play a night again, play it into another prefix. The exit status is 1 if something could not be done;
    the faults that were asked for do not count.
    """
    from prompt_processing.domain.clock import NightClock
    from prompt_processing.domain.errors import RepositoryError
    from prompt_processing.factory.destinations import open_destination, settings_for
    from prompt_processing.instruments.detector_map import DetectorMap
    from prompt_processing.night.clock import clock_for
    from prompt_processing.night.folder import read_night
    from prompt_processing.night.landing import Landing
    from prompt_processing.night.plan import Fault, Timing, plan
    from prompt_processing.night.play import NightPlayer, RealTime, Report
    from prompt_processing.storage import object_store

    with Progress() as progress:
        # Messages on standard output must not be mixed with what is meant for people.
        say = partial(click.echo, err=True) if events == "stdout" else progress.line
        announce = open_destination(events)
        settings = settings_for(events, night)
        visits = read_night(night, say)
        if cadence is not None:
            visits = _respaced(visits, cadence, seed)
            say("warning: headers of the raws differ from events in time, by what their visits were moved")
        actions = plan(
            visits,
            timing=Timing(lead=lead, jitter=jitter, image_timeout=settings.worker.image_timeout_s),
            faults={Fault(name.replace("_", "-")): fraction for name, fraction in faults.items()},
            seed=seed,
            active=DetectorMap(settings.instruments).active(),
            on_error=say,
        )
        if not actions:
            raise RepositoryError(f"{night}: there is nothing to play")
        clock = clock_for(actions, start_in) if clock_offset is None else NightClock(clock_offset)
        _announce(clock, actions, say)
        player = NightPlayer(
            folder=night / "raw",
            landing=Landing(object_store.root(to)),
            announce=announce,
            pace=RealTime(clock),
            report=Report(progress=progress, fault=say, error=lambda text: say(failure(text))),
            threads=threads,
        )
        progress("play", 0, len(actions))
        played = player.play(actions)
    say(_summary(to, played))
    context.exit(1 if played.failed else 0)


def _respaced(visits: "list[Visit]", cadence: float | str, seed: int) -> "list[Visit]":
    """Return visits at another cadence."""
    from prompt_processing.night.visits import lsstcam_cadence, regular_cadence, respace

    intervals = lsstcam_cadence(seed) if isinstance(cadence, str) else regular_cadence(cadence)
    return respace(visits, intervals)


def _announce(clock: "NightClock", actions: "list[Action]", say: Callable[[str], None]) -> None:
    """Tell what others need to know, and what is to come."""
    from prompt_processing.config import environment_name
    from prompt_processing.night.plan import Publish

    say("Services that process this night need this setting:")
    say(f"{environment_name('worker', 'clock_offset_s')}={clock.offset:.3f}")
    n_events = sum(isinstance(action, Publish) for action in actions)
    n_raws = len({action.raw for action in actions if not isinstance(action, Publish)})
    minutes = (actions[-1].at - actions[0].at) / 60
    say(f"{n_events} events and {n_raws} raws in {minutes:.1f} minutes")


def _summary(to: str, played: "Played") -> str:
    """Return one line about what was done."""
    return (
        f"{to}: {played.events} events published ({played.messages} messages), "
        f"{played.images} raws uploaded, {played.there} were there already, {played.lost} lost, "
        f"{played.failed} actions failed; "
        f"at most {played.behind:.1f} s behind"
    )
