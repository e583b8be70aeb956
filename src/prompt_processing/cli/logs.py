"""How log lines look: structlog and the standard library's loggers through one formatter."""

import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial

import click
import structlog

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure(levels: Iterable[str] = ()) -> None:
    """Set up logging of this process to standard error, as text for a person.

    Parameters
    ----------
    levels
        ``LEVEL`` for all loggers or ``LOGGER=LEVEL`` for one of them and those below; later ones win.

    Raises
    ------
    click.BadParameter
        If a level is not one of `LEVELS`.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    for text in levels:
        logger, level = _parse(text)
        logger.setLevel(level)


def configure_engines(*defaults: str) -> Callable[[], None]:
    """Set up logging of a command that works with engines, and return what does the same in an engine.

    Parameters
    ----------
    defaults
        Levels that hold unless the user gives others.
    """
    levels = (*defaults, *click.get_current_context().find_root().params["log_levels"])
    configure(levels)
    return partial(configure, levels)


def _parse(text: str) -> tuple[logging.Logger, str]:
    """Return the logger and the level of one option."""
    name, _, level = text.rpartition("=")
    level = level.upper()
    if level not in LEVELS:
        raise click.BadParameter(
            f"{text!r}: the level is one of {', '.join(LEVELS)}", param_hint="--log-level"
        )
    return logging.getLogger(name or None), level
