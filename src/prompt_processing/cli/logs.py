"""Logging of the commands, as the option ``--log-level`` wants it."""

from collections.abc import Callable, Iterable
from functools import partial

import click

from prompt_processing.domain.errors import ConfigError
from prompt_processing.runtime import logs


def configure(levels: Iterable[str] = ()) -> None:
    """Set up logging of this process to standard error, as text for a person.

    Raises
    ------
    click.BadParameter
        If a level is not one of `prompt_processing.runtime.logs.LEVELS`.
    """
    try:
        logs.configure(levels)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--log-level") from error


def configure_engines(*defaults: str) -> Callable[[], None]:
    """Set up logging of a command that works with engines, and return what does the same in an engine.

    Parameters
    ----------
    defaults
        Levels that hold unless the user gives others.
    """
    levels = (*defaults, *click.get_current_context().find_root().params["log_levels"])
    configure(levels)
    return partial(logs.configure, levels)
