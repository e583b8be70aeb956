"""How log lines look: structlog and the standard library's loggers through one formatter."""

import json
import logging
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final

import structlog

from prompt_processing.domain.errors import ConfigError, RepositoryError

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")


def configure(levels: Iterable[str] = (), *, as_json: bool = False) -> None:
    """Set up logging of this process.

    Parameters
    ----------
    levels
        ``LEVEL`` for all loggers or ``LOGGER=LEVEL`` for one of them and those below; later ones win.
    as_json
        Whether to write one JSON object per line to standard output, as a service does (with the field names
        of Google Cloud Logging), instead of text for a person to standard error.

    Raises
    ------
    ConfigError
        If a level is not one of `LEVELS`.
    """
    shared: list[Any] = [
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
    renderers: list[Any]
    if as_json:
        renderers = [
            structlog.processors.format_exc_info,
            _for_cloud,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    else:
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stdout if as_json else sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    if as_json:
        sys.excepthook = _log_uncaught
    for text in levels:
        logger, level = _parse(text)
        logger.setLevel(level)


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Log in one line why this process ends; wrong settings are logged without a traceback."""
    is_mistake = isinstance(error, ConfigError | RepositoryError)
    details = None if is_mistake else (kind, error, traceback)
    structlog.get_logger(__name__).critical(str(error) or kind.__name__, exc_info=details)


def _for_cloud(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Give the fields the names that Google Cloud Logging knows."""
    renamed = {"event": "message", "level": "severity", "timestamp": "time"}
    found = {renamed.get(name, name): value for name, value in event.items()}
    return found | {"severity": str(found.get("severity", "default")).upper()}


def _to_json(event: dict[str, Any], **_: Any) -> str:
    try:
        return json.dumps(event, default=str, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        # Numbers that JSON does not know, keys that are no text, or circles: no line is lost for these.
        return json.dumps({str(name): str(value) for name, value in event.items()})


def _parse(text: str) -> tuple[logging.Logger, str]:
    """Return the logger and the level of one option."""
    name, _, level = text.rpartition("=")
    level = level.upper()
    if level not in LEVELS:
        raise ConfigError(f"log level {text!r}: the level is one of {', '.join(LEVELS)}")
    return logging.getLogger(name or None), level
