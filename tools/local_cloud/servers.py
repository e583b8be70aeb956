"""Real servers for tests, started here and stopped at the end, and PostgreSQL as the first of them."""

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, ClassVar, Self

import pg8000.dbapi
import psutil

LOOPBACK = "127.0.0.1"
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0
_PROBE_INTERVAL = 0.02
_POSTGRES_USER = "postgres"
"""Who runs PostgreSQL if we are root, whom it refuses."""
_LAUNCHER = ThreadPoolExecutor(1, "servers")
"""Starts all servers: they die with the thread that started them, and this one lives to the end."""


class ServerMissingError(Exception):
    """A server that a test needs is not installed."""


class Server(ABC):
    """A program that listens on the loopback interface only, on ports that it keeps through restarts.

    Use it as a context manager. It dies with this process, however that ends.
    """

    n_ports: ClassVar[int] = 1
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """What it is sent if this process dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[socket.socket] = []
        self.ports: tuple[int, ...] = ()
        self._as: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._folder = self._make_folder()
        try:
            self._sockets = [reserve_port() for _ in range(self.n_ports)]
            self.ports = tuple(int(held.getsockname()[1]) for held in self._sockets)
            self._prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for held in self._sockets:
            held.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def port(self) -> int:
        """Port that clients use."""
        return self.ports[0]

    @property
    def pid(self) -> int:
        """Id of the running process."""
        if not self.running:
            raise RuntimeError(f"{type(self).__name__} does not run")
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it has ended; `None` if it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    @property
    def log_file(self) -> Path:
        return self._folder / "log"

    def start(self) -> None:
        """Start it, on the same ports as ever, and wait until it answers."""
        if self.running:
            raise RuntimeError(f"{type(self).__name__} runs already")
        self._process = _LAUNCHER.submit(self._launch).result()
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{type(self).__name__} does not start: {self.log()}")
            time.sleep(_PROBE_INTERVAL)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it in its own way; no error if it does not run."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self) -> None:
        """Start it again with the same ports and data, whether it was killed or still runs."""
        self.stop()
        self.start()

    def log(self) -> str:
        """Return what it has printed."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [*_dying_with_parent(self.death_signal), *self._command()]
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment()},
                **self._as,
            )

    def _make_folder(self) -> Path:
        """Make the folder for its log and, if it has no other place for them, its data."""
        return Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))

    def _prepare(self) -> None:  # noqa: B027 (most need nothing)
        """Do what comes before the first start."""

    def _environment(self) -> Mapping[str, str]:
        """Return variables that it gets besides ours."""
        return {}

    @abstractmethod
    def _command(self) -> list[str]:
        """Return program and arguments."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it is ready."""


class Postgres(Server):
    """A PostgreSQL server with an empty data folder of its own.

    Nothing is synced to disk: what is committed survives a kill, but not a loss of power.
    """

    stop_signal = signal.SIGINT  # the default would wait for the clients to leave
    death_signal = signal.SIGQUIT  # takes its children and its shared memory along

    def __init__(self) -> None:
        super().__init__()
        self._binaries = _find_binaries()
        self._names = itertools.count()

    def kill(self) -> None:
        """Kill the server's first process, and wait until the others have noticed."""
        super().kill()
        if hasattr(self, "_folder"):
            _wait_until_left(self._data)
            # A server that is not reaped at once seems to be alive, and a new one would refuse this folder.
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def new_database(self) -> str:
        """Make an empty database; return its SQLAlchemy URL."""
        name = f"test_{next(self._names)}"
        self._execute(f"CREATE DATABASE {name}")
        return f"postgresql+pg8000://postgres@{LOOPBACK}:{self.port}/{name}"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _make_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=_open_folder()))
        if os.geteuid() == 0:
            account = pwd.getpwnam(_POSTGRES_USER)
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(folder, account.pw_uid, account.pw_gid)
        return folder

    def _prepare(self) -> None:
        arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        done = subprocess.run(
            [self._binaries / "initdb", "-D", self._data, *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": "300",
            "fsync": "off",
            "full_page_writes": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *options]

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except pg8000.dbapi.Error:
            return False
        return True

    def _execute(self, statement: str) -> None:
        connection = pg8000.dbapi.connect("postgres", host=LOOPBACK, port=self.port, timeout=30)
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()


def reserve_port() -> socket.socket:
    """Return a socket that keeps a free port for a server of ours until it is closed.

    While it is bound, the kernel gives the port to nobody who asks for any port, also not while the server is
    down. It never listens, so a server that sets ``SO_REUSEADDR``, as all of them do, binds beside it.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((LOOPBACK, 0))
    return held


def answers_http(port: int, path: str) -> bool:
    """Whether an HTTP server on a port of the loopback interface answers with status 200."""
    connection = HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _dying_with_parent(death_signal: signal.Signals) -> list[str]:
    """Return what to put before a command so that it gets a signal when the thread that started it ends."""
    # The same could be done between fork and exec, but running Python there is unsafe beside other threads.
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", death_signal.name.removeprefix("SIG"), "--"] if setpriv else []


def _wait_until_left(folder: Path) -> None:
    """Wait until no process works in a folder; kill those that do not leave."""
    deadline = time.monotonic() + _STOP_TIMEOUT
    while left := [process for process in psutil.process_iter() if _works_in(process, folder)]:
        if time.monotonic() > deadline:
            for process in left:
                process.kill()
        time.sleep(_PROBE_INTERVAL)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()) == folder
    except (psutil.Error, OSError):
        return False  # of somebody else, or dead and not reaped


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
