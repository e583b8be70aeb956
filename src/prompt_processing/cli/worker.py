"""``prompt worker``: processing without an end."""

from pathlib import Path

import click

from prompt_processing.cli.logs import configure_engines
from prompt_processing.cli.options import repo_argument
from prompt_processing.cli.progress import Progress
from prompt_processing.runtime.signals import stop_on_signals


@click.group()
def worker() -> None:
    """Process visits as they come."""


@worker.command("run")
@repo_argument
@click.option(
    "--engines",
    type=click.IntRange(1, 256),
    help="How many visits and detectors to work on at the same time.  [default: the setting worker.engines]",
)
def worker_run(repo: Path, engines: int | None) -> None:
    """Take the messages of visits from the queue of REPO and process them, until told to stop.

    Raws are found as they appear in the landing store. SIGTERM and Ctrl-C end the worker within 10 s: a visit
    that has not changed anything yet is given back at once, one that has may be finished. Nothing is lost.
    """
    set_up_logging = configure_engines("prompt_processing=INFO")
    stop = stop_on_signals()
    from prompt_processing.factory.run import run_worker

    run_worker(
        repo,
        engines=engines,
        stop=stop,
        set_up_logging=set_up_logging,
        on_ready=lambda: click.echo(f"{repo}: working", err=True),
    )
    click.echo(f"{repo}: stopped", err=True)


@worker.command("warm")
def worker_warm() -> None:
    """Compile what a worker would compile at its start or at its first visit.

    Meant for the building of a container image, after the installation. Python code is compiled, and a small
    simulated visit is processed in a temporary folder, so that the compiled numerical code is kept beside the
    installed code. It needs no repository, takes one to three minutes, and may be repeated.
    """
    set_up_logging = configure_engines()
    from prompt_processing.factory.warm_up import warm_up

    with Progress() as progress:
        warm_up(set_up_logging=set_up_logging, progress=progress)
    click.echo("warm: Python and numerical code are compiled")
