"""Detectors that operators switch off while the system runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog
import yaml

from prompt_processing.config import InstrumentSettings
from prompt_processing.domain.errors import ConfigError
from prompt_processing.instruments.fan_out import Active, active_detectors

_LOG: Final = structlog.get_logger(__name__)


class DetectorMap:
    """Which detectors are processed now: those of the settings that the file does not switch off.

    The file is YAML, ``{instrument: {detector: true or false}}``; a detector that it does not name is on.

    Parameters
    ----------
    settings
        Section ``instruments`` of the settings, with an absolute path of the file.

    Raises
    ------
    ConfigError
        If the file cannot be read, or names an instrument or a detector that does not exist.
    """

    def __init__(self, settings: InstrumentSettings) -> None:
        self._chosen: Active = settings.detectors
        self._file = Path(settings.detector_map) if settings.detector_map else None
        self._seen: object = None
        self._active: Active = self._chosen
        if self._file is not None:
            self._seen = _stamp(self._file)
            self._active = self._read(self._file)

    def active(self) -> Active:
        """Return the numbers of the detectors that are processed, by instrument.

        The file is read again if it has changed. If it is wrong then, the error is logged once and what
        held before goes on to hold: the night does not stop for a slip of the pen.
        """
        if self._file is not None and (stamp := _stamp(self._file)) != self._seen:
            self._seen = stamp
            try:
                self._active = self._read(self._file)
                _LOG.info("detector map read again", file=str(self._file))
            except ConfigError as error:
                _LOG.error("detector map is wrong; the one before still holds", error=str(error))
        return self._active

    def _read(self, file: Path) -> Active:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{file}: cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(content or {}, dict):
            raise ConfigError(f"{file}: must hold instruments by name, not {type(content).__name__}")
        return {
            **self._chosen,
            **{name: self._on(file, name, each) for name, each in (content or {}).items()},
        }

    def _on(self, file: Path, instrument: str, switches: Any) -> Sequence[int]:
        if not isinstance(switches, dict) or not all(isinstance(state, bool) for state in switches.values()):
            raise ConfigError(f"{file}: {instrument}: must be true or false by number of the detector")
        try:
            active_detectors(instrument, {instrument: list(switches)})  # they all exist
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{file}: {error}") from error
        return [number for number in active_detectors(instrument, self._chosen) if switches.get(number, True)]


def _stamp(file: Path) -> object:
    """Return what changes when a file does, also when it is a link that is set to another file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
