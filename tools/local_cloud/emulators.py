"""Servers that stand in for Google Cloud: Pub/Sub and Cloud Storage; and a line to them that can be cut."""

import asyncio
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

from local_cloud.servers import LOOPBACK, Server, ServerMissingError, answers_http, reserve_port

_GCS_MODULE = "github.com/fsouza/fake-gcs-server"
GCS_VERSION = "v1.56.1"
_CHUNK = 1 << 16
type Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""One direction of a connection: where bytes come from, and where they go."""


class PubSubEmulator(Server):
    """The Pub/Sub emulator of the Google Cloud SDK. It keeps everything in memory.

    It stores filters of subscriptions but never applies them, pushes two messages at a time per subscription
    and sends no token.
    """

    def __init__(self) -> None:
        super().__init__()
        self._java, self._jar = _find_pubsub()

    @property
    def host(self) -> str:
        """Address as ``PUBSUB_EMULATOR_HOST`` takes it."""
        return f"{LOOPBACK}:{self.port}"

    def _command(self) -> list[str]:
        # The SDK's own way of starting it leaves java behind when it is killed.
        tuning = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx2g"]
        return [self._java, *tuning, "-jar", str(self._jar), f"--host={LOOPBACK}", f"--port={self.port}"]

    def _answers(self) -> bool:
        return answers_http(self.port, "/")


class GcsServer(Server):
    """Cloud Storage by fake-gcs-server. Objects survive a kill; configurations of notifications do not.

    It obeys preconditions of uploads only, and when it is asked how far a resumable upload has come, it takes
    what it has for the whole.

    Parameters
    ----------
    pubsub_host
        Where notifications are published: the Pub/Sub emulator.
    folder
        Where the objects are, a folder per bucket; a temporary one by default.
    """

    n_ports: ClassVar[int] = 2

    def __init__(self, pubsub_host: str | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self._pubsub_host = pubsub_host
        self._objects = folder
        self._program = _find_gcs()

    @property
    def url(self) -> str:
        """Address as ``STORAGE_EMULATOR_HOST`` takes it."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def tls_port(self) -> int:
        """Port for clients that insist on HTTPS, with a certificate that nobody knows."""
        return self.ports[1]

    def _command(self) -> list[str]:
        options = {
            "scheme": "both",
            "host": LOOPBACK,
            "port-http": str(self.port),
            "port": str(self.tls_port),
            # Where resumable uploads are told to go on.
            "external-url": self.url,
            "public-host": f"{LOOPBACK}:{self.port}",
            "backend": "filesystem",
            "filesystem-root": str(self._objects or self._folder / "data"),
        }
        return [
            str(self._program),
            *(part for name, value in options.items() for part in (f"-{name}", value)),
        ]

    def _environment(self) -> Mapping[str, str]:
        return {"PUBSUB_EMULATOR_HOST": self._pubsub_host} if self._pubsub_host else {}

    def _answers(self) -> bool:
        return answers_http(self.port, "/_internal/healthcheck")


class Proxy:
    """A TCP line to a server on this machine that can be cut and mended; use it as a context manager.

    Parameters
    ----------
    target_host, target_port
        Where connections are passed on to.
    port
        Where they are accepted; a free port if 0.
    """

    def __init__(self, target_host: str, target_port: int, port: int = 0) -> None:
        self._target = (target_host, target_port)
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._held: socket.socket | None = None

    def __enter__(self) -> Self:
        if not self.port:
            self._held = reserve_port()
            self.port = int(self._held.getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._held is not None:
            self._held.close()

    @property
    def host(self) -> str:
        """Address of this end of the line."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def n_connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    def mend(self) -> None:
        """Take connections again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._mend(), self._loop).result()

    async def _mend(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port, reuse_address=True)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._connections)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._pass_on(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            ends.add(far_writer)
            # It may have been cut meanwhile.
            if self._server is not None:
                self._writers |= ends
                await self._exchange((reader, far_writer), (far_reader, writer))
        except OSError:
            pass  # the server at the far end is down
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _exchange(self, there: Way, back: Way) -> None:
        """Pass on what comes on a connection in both directions, until both have ended."""
        await asyncio.gather(_copy(*there), _copy(*back))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes in one direction, and then its end."""
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _find_pubsub() -> tuple[str, Path]:
    """Return the programs java and emulator."""
    gcloud, java = shutil.which("gcloud"), shutil.which("java")
    if gcloud is None:
        raise ServerMissingError("the Google Cloud SDK is not installed (gcloud is not on the search path)")
    if java is None:
        raise ServerMissingError("java is not installed (on Debian: apt-get install default-jre-headless)")
    folder = Path(gcloud).resolve().parents[1] / "platform/pubsub-emulator/lib"
    found = sorted(folder.glob("cloud-pubsub-emulator-*-all.jar"))
    if not found:
        raise ServerMissingError("the Google Cloud SDK lacks its component pubsub-emulator")
    return java, found[-1]


def _find_gcs() -> Path:
    """Return the program fake-gcs-server; it is built once per user, which takes some minutes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "prompt-processing" / "bin"
    program = folder / f"fake-gcs-server-{GCS_VERSION}"
    if program.is_file():
        return program
    if shutil.which("go") is None:
        raise ServerMissingError(
            "fake-gcs-server is not there, and Go, which would build it, is not installed"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Others who want it at the same time wait for the one who builds it.
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.is_file():
            _build_gcs(program)
    return program


def _build_gcs(program: Path) -> None:
    with tempfile.TemporaryDirectory(dir=program.parent) as work:
        done = subprocess.run(
            ["go", "install", "-trimpath", "-ldflags", "-s -w", f"{_GCS_MODULE}@{GCS_VERSION}"],
            env={**os.environ, "GOBIN": work, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerMissingError(f"fake-gcs-server cannot be built: {done.stdout}{done.stderr}")
        (Path(work) / "fake-gcs-server").replace(program)
