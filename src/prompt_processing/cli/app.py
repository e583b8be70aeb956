"""The command ``prompt``: its groups, its options and how errors are shown."""

from typing import Any

import click

from prompt_processing.cli.alerts import alerts
from prompt_processing.cli.audit import audit
from prompt_processing.cli.bridge import bridge
from prompt_processing.cli.calibs import calibs
from prompt_processing.cli.camera import camera
from prompt_processing.cli.config import config
from prompt_processing.cli.effects import effects
from prompt_processing.cli.night import night
from prompt_processing.cli.pipeline import pipeline
from prompt_processing.cli.refcat import refcat
from prompt_processing.cli.repo import repo
from prompt_processing.cli.simulate import simulate
from prompt_processing.cli.status import status
from prompt_processing.cli.templates import templates
from prompt_processing.cli.visits import visits
from prompt_processing.cli.worker import worker
from prompt_processing.domain.errors import PromptError

HELP_SECTIONS = {
    "Run a night": ("simulate", "night", "camera", "bridge", "worker", "visits", "effects"),
    "Prepare a repository": ("repo", "calibs", "refcat", "templates"),
    "Look at results": ("status", "audit", "alerts"),
    "Settings": ("config", "pipeline"),
}
"""How ``prompt --help`` groups the commands."""


class PromptGroup(click.Group):
    """A group that lists its commands in sections, and turns our errors into one line and exit code 1."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's signature)
        """Write the commands by section."""
        for title, names in HELP_SECTIONS.items():
            rows = [(name, self.commands[name].get_short_help_str(limit=80)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error that the user can mend needs no traceback."""
        try:
            return super().invoke(ctx)
        except PromptError as error:
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(
    cls=PromptGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--log-level",
    "log_levels",
    multiple=True,
    metavar="[LOGGER=]LEVEL",
    help="Lowest level of the log lines on standard error (DEBUG, INFO, WARNING, ERROR), of all loggers or "
    "of one, for example lsst.daf.butler=DEBUG; may be repeated. The default is WARNING, and INFO for what "
    "prompt worker says itself.",
)
@click.version_option(package_name="prompt-processing", prog_name="prompt")
def main(log_levels: tuple[str, ...]) -> None:
    """Turn raw images of a night into alerts.

    Commands read "prompt NOUN VERB ARGUMENTS --options"; each of them has a --help of its own.
    """
    from prompt_processing.cli.logs import configure

    configure(log_levels)


for command in (
    simulate,
    night,
    camera,
    bridge,
    worker,
    visits,
    effects,
    repo,
    calibs,
    refcat,
    templates,
    status,
    audit,
    alerts,
    config,
    pipeline,
):
    main.add_command(command)
