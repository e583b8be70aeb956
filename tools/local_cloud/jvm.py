"""Java servers for tests: their jars, and an archive of the classes they load, are made once per user."""

import fcntl
import functools
import os
import re
import shutil
import subprocess
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import escape

from local_cloud.servers import Server, ServerMissingError

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_DUMP_TIMEOUT = 120.0
_TUNING = [
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # leaves files behind after a kill
    "-Xms64m",
]


class JavaServer(Server):
    """A server that runs in Java, from jars in the user's cache.

    When the first of a kind is made, Maven fetches the jars, and one is started and stopped to archive its
    classes, from which the others start in half the time. This takes up to a minute.

    Parameters
    ----------
    archive_to
        Where to leave such an archive; for our own use.
    """

    kind: ClassVar[str]
    version: ClassVar[str]
    oldest_java: ClassVar[int]

    def __init__(self, *, archive_to: Path | None = None) -> None:
        super().__init__()
        self._java, java_version = _find_java(self.oldest_java)
        self._home = _once(_cache() / f"{self.kind}-{self.version}", self._fetch)
        if archive_to:
            self._sharing = f"-XX:ArchiveClassesAtExit={archive_to}"
        else:
            # One of another Java would not be used.
            archive = self._home / f"classes-{java_version}.jsa"
            self._sharing = f"-XX:SharedArchiveFile={_once(archive, self._archive_classes)}"

    @abstractmethod
    def _fetch(self, folder: Path) -> None:
        """Make a folder with all that it needs to run."""

    @abstractmethod
    def _arguments(self) -> list[str]:
        """Return what starts it, as java takes it."""

    def _command(self) -> list[str]:
        return self._java_command(*self._arguments())

    def _java_command(self, *arguments: str) -> list[str]:
        return [self._java, *_TUNING, self._sharing, f"-Djava.io.tmpdir={self._folder}", *arguments]

    def _archive_classes(self, archive: Path) -> None:
        with type(self)(archive_to=archive) as trial:
            assert trial._process is not None
            trial._process.send_signal(self.stop_signal)
            trial._process.wait(_DUMP_TIMEOUT)  # longer than stop() waits
        # Without one, starts are slow, but need not try again each time.
        archive.touch()


def fetch_jars(folder: Path, *coordinates: str, alone: bool = False) -> None:
    """Let Maven copy artefacts to a folder.

    Parameters
    ----------
    folder
        It is made.
    coordinates
        ``group:artifact:version`` each, or ``group:artifact:version:type:classifier``.
    alone
        Whether to leave out what they depend on.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerMissingError(
            f"{coordinates[0]} is not there, and Maven, which would fetch it, is not installed"
            " (on Debian: apt-get install maven)"
        )
    with tempfile.TemporaryDirectory() as project:
        (Path(project) / "pom.xml").write_text(_pom(coordinates, alone=alone))
        done = subprocess.run(
            [maven, "-q", "-B", _COPY, "-DincludeScope=runtime", f"-DoutputDirectory={folder}"],
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ServerMissingError(f"{', '.join(coordinates)} cannot be fetched: {done.stdout}{done.stderr}")


def _pom(coordinates: tuple[str, ...], *, alone: bool) -> str:
    # An option of the plugin would leave them out too, but only after it has looked for them.
    rest = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    names = ("groupId", "artifactId", "version", "type", "classifier")
    dependencies = ""
    for coordinate in coordinates:
        parts = zip(names, coordinate.split(":"), strict=False)
        tags = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in parts)
        dependencies += f"<dependency>{tags}{rest if alone else ''}</dependency>"
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>tests</groupId><artifactId>server</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )


@functools.cache
def _find_java(oldest: int) -> tuple[str, str]:
    """Return the program java and its version."""
    java = shutil.which("java")
    if java is None:
        raise ServerMissingError("java is not installed (on Debian: apt-get install default-jre-headless)")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "((\d+)[^"]*)"', done.stderr)
    if found is None or int(found[2]) < oldest:
        raise ServerMissingError(f"java is not version {oldest} or newer: {done.stderr.strip()}")
    return java, found[1]


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "prompt-processing" / "jars"


def _once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return a file or folder that is made where it is missing, and is there as a whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Others who want it at the same time wait for the one who makes it.
        with (
            _locked(path.with_name(f".{path.name}.lock")),
            tempfile.TemporaryDirectory(dir=path.parent) as work,
        ):
            if not path.exists():
                unfinished = Path(work) / path.name
                make(unfinished)
                unfinished.rename(path)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
