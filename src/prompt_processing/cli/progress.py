"""Progress bars on standard error: one bar per stage of long work."""

import sys
from types import TracebackType
from typing import Any, Self

import click


class Progress:
    """Draws the stages of a work as bars; call it with ``(stage, done, total)``.

    Use it as a context manager. Where standard error is not a terminal, only the name of each stage is
    printed, so logs stay readable.
    """

    def __init__(self) -> None:
        self._stage: str | None = None
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps of a stage are finished."""
        if stage != self._stage:
            self._close()
            self._stage = stage
            label = f"{stage[:34]:<34}" if sys.stderr.isatty() else stage
            self._bar = click.progressbar(length=total, label=label, show_pos=True, file=sys.stderr)
            self._bar.__enter__()
        self._bar.update(done - self._bar.pos)

    def line(self, text: str) -> None:
        """Print a line on standard output without tearing the bar."""
        drawn = self._bar is not None and sys.stderr.isatty()
        if drawn:
            click.echo("\r\x1b[K", nl=False, err=True)
        click.echo(text)
        if drawn:
            click.echo(self._bar.format_progress_line(), nl=False, err=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        """End the bar that is on the screen."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
            if sys.stderr.isatty():
                click.echo(err=True)
