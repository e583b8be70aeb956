"""A real PostgreSQL server for tests, started here and stopped at the end."""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import pg8000.dbapi

_SERVER_USER = "postgres"
"""Who runs the server if we are root, whom it refuses."""
_START_TIMEOUT = 60.0


class ServerMissingError(Exception):
    """A server that a test needs is not installed."""


class Postgres:
    """A PostgreSQL server on a free port of the loopback interface, with an empty data folder of its own.

    Use it as a context manager. Nothing is synced to disk: it survives a kill, but not a loss of power.
    """

    def __init__(self) -> None:
        self._binaries = _find_binaries()
        self._names = itertools.count()

    def __enter__(self) -> Self:
        account = pwd.getpwnam(_SERVER_USER) if os.geteuid() == 0 else None
        self._as: dict[str, Any] = {}
        if account is not None:
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=_open_folder()))
        if account is not None:
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        try:
            self._initialise()
            self._port = _free_port()
            self._process = self._launch()
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Make an empty database; return its SQLAlchemy URL."""
        name = f"test_{next(self._names)}"
        self._execute(f"CREATE DATABASE {name}")
        return f"postgresql+pg8000://postgres@127.0.0.1:{self._port}/{name}"

    def _initialise(self) -> None:
        arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        done = subprocess.run(
            [self._binaries / "initdb", "-D", self._folder / "data", *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [self._binaries / "postgres", "-D", self._folder / "data", "-p", str(self._port), *options]
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log, **self._as)

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                self._execute("SELECT 1")
            except pg8000.dbapi.Error as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self._folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"postgres does not start: {log}") from error
                time.sleep(0.05)
            else:
                return

    def _execute(self, statement: str) -> None:
        connection = pg8000.dbapi.connect("postgres", host="127.0.0.1", port=self._port, timeout=30)
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()


def _find_binaries() -> Path:
    """Return the folder of PostgreSQL's programs, the newest if there are several."""
    found = shutil.which("initdb")
    # The search path may hold links to a few of them; the others are where they lead.
    folders = [Path(found).resolve().parent] if found else []
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(installed, key=lambda folder: float(folder.parent.name), reverse=True)
    for folder in folders:
        if all((folder / name).is_file() for name in ("initdb", "postgres")):
            return folder
    raise ServerMissingError("PostgreSQL is not installed (on Debian: apt-get install postgresql)")


def _open_folder() -> Path:
    """Return a folder for temporary files that every user may enter, if we are root and the server is not."""
    folders = [Path(tempfile.gettempdir())]
    if os.geteuid() == 0:
        folders += [Path("/tmp"), Path("/var/tmp")]  # noqa: S108 (a folder with a random name is made inside)
        folders = [folder for folder in folders if _is_open(folder)]
    return folders[0]


def _is_open(folder: Path) -> bool:
    return all(path.is_dir() and path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
