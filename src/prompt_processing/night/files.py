"""Which files are raws, and by what key."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prompt_processing.domain.errors import RawError
from prompt_processing.domain.raws import RawKey, parse_raw_key

LAYOUT: Final = "INSTRUMENT/DAY_OBS/OBS_ID/OBS_ID_Rxx_Sxx.fits[.fz]"
"""How the path of a raw ends, for messages."""
_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class LocalRaw:
    """A raw on this machine."""

    raw: RawKey
    path: Path

    @property
    def sidecar(self) -> Path:
        """Where its sidecar is, if it has one."""
        return self.path.parent / Path(self.raw.sidecar).name


def find_raws(sources: Iterable[Path], on_skip: Callable[[str], None]) -> list[LocalRaw]:
    """Find the raws in nights, in other folders, and among files.

    Parameters
    ----------
    sources
        Files, and folders with everything below them. Of a night, which has a folder ``raw``, only that.
    on_skip
        Called with what is in a folder and is neither a raw nor the sidecar of one.

    Returns
    -------
    raws
        In the order of their keys.

    Raises
    ------
    RawError
        If the path of a file that was named does not end like the key of a raw, a folder holds no raw, or two
        files have one key.
    """
    found: dict[str, LocalRaw] = {}
    for source in sources:
        for file in _in_folder(source, on_skip) if source.is_dir() else [_named(source)]:
            key = str(file.raw)
            known = found.setdefault(key, file)
            if known is not file and not known.path.samefile(file.path):
                raise RawError(f"{key}: is the key of two files, {known.path} and {file.path}")
    return [found[key] for key in sorted(found)]


def _named(file: Path) -> LocalRaw:
    raw = _key_of(file)
    if raw is None:
        raise RawError(f"{file}: is not named like a raw; its path must end with {LAYOUT}")
    return LocalRaw(raw, file)


def _in_folder(folder: Path, on_skip: Callable[[str], None]) -> Sequence[LocalRaw]:
    # Calibs and earlier epochs have the same layout, but no visit waits for them.
    top = folder / "raw" if (folder / "raw").is_dir() else folder
    files = [path for path in sorted(top.rglob("*")) if path.is_file()]
    raws = [LocalRaw(raw, path) for path in files if (raw := _key_of(path)) is not None]
    if not raws:
        raise RawError(f"{top}: there is no raw; the path of one ends with {LAYOUT}")
    known = {path for raw in raws for path in (raw.path, raw.sidecar)}
    for path in files:
        if path not in known:
            on_skip(f"{path}: skipped, it is no raw and no sidecar of one")
    return raws


def _key_of(file: Path) -> RawKey | None:
    return parse_raw_key("/".join(file.absolute().parts[-_DEPTH:]))
