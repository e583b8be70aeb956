"""The whole deployment on this machine: emulators, databases, and our services as in their containers."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from local_cloud.emulators import GcsServer, PubSubEmulator
from local_cloud.push_agent import PushAgent, TokenIssuer
from local_cloud.servers import LOOPBACK, Postgres, Server, answers_http
from local_cloud.topology import make_topology, notify

SERVICES = Path(__file__).parents[2] / "services"
PUSHER = "pusher@prompt-local.iam.gserviceaccount.com"
"""Account that Pub/Sub calls the services with."""
LEASE = 10
"""How long a claim and a pulled message outlive their worker [s]."""
ATTEMPTS = 100
"""How often a message is delivered: a test may keep a store away for longer than a night would."""


class Service(Server):
    """One of our services, with the command and the settings of its container.

    Parameters
    ----------
    name
        Folder below ``services/``.
    environment
        Its settings.
    program
        What is run there: gunicorn by default.
    probe
        What it answers when it has started.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], program: str | None = None, probe: str = "/ready"
    ) -> None:
        super().__init__()
        self._probe = probe
        self._name = name
        self._settings = environment
        self._program = program

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/"

    def kill(self) -> None:
        """End it with all its processes, as a container ends."""
        if self.running:
            for process in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        super().kill()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of its log that are JSON."""
        for line in self.log().splitlines():
            if line.startswith("{"):
                yield json.loads(line)

    def _command(self) -> list[str]:
        folder = SERVICES / self._name
        if self._program:
            return [sys.executable, str(folder / self._program)]
        return [
            sys.executable,
            "-m",
            "gunicorn",
            "--chdir",
            str(folder),
            "-c",
            str(folder / "gunicorn.conf.py"),
        ]

    def _environment(self) -> Mapping[str, str]:
        return {**self._settings, "HOST": LOOPBACK, "PORT": str(self.port), "PYTHONUNBUFFERED": "1"}

    def _answers(self) -> bool:
        return answers_http(self.port, self._probe)


class Cloud:
    """Everything but the observatory; use it as a context manager.

    Parameters
    ----------
    repo
        Plays the folder of the repository in the containers.
    postgres, pubsub, gcs
        Servers that run already, in place of own ones.
    pubsub_proxy
        Where our services reach Pub/Sub, if that is not its own address.
    exactly_once
        Whether the worker's subscription has exactly-once delivery.
    """

    def __init__(
        self,
        repo: Path,
        *,
        postgres: Postgres | None = None,
        pubsub: PubSubEmulator | None = None,
        gcs: GcsServer | None = None,
        pubsub_proxy: str | None = None,
        exactly_once: bool = False,
    ) -> None:
        self.repo = repo
        self._exactly_once = exactly_once
        self._given = postgres, pubsub, gcs
        self._proxy = pubsub_proxy
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            postgres, pubsub, gcs = self._given
            self.postgres = postgres or opened.enter_context(Postgres())
            self.pubsub = pubsub or opened.enter_context(PubSubEmulator())
            self.gcs = gcs or opened.enter_context(GcsServer(self.pubsub.host))
            self.issuer = opened.enter_context(TokenIssuer())
            own = uuid.uuid4().hex[:8]
            self.topology = make_topology(
                self.pubsub.host,
                self.gcs.url,
                project=f"prompt-{own}",
                incoming=f"incoming-{own}",
                products=f"products-{own}",
                ack_deadline=LEASE,
                retries=(1, 10),
                max_attempts=ATTEMPTS,
                exactly_once=self._exactly_once,
            )
            self.environment = self._settings()
            self._open = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def use(self) -> None:
        """Let this process see the cloud as the services do."""
        os.environ.update(self.environment)

    def prompt(self, *arguments: object, show: bool = False, **settings: str) -> str:
        """Run one of our commands here, and return what it prints, unless that is shown at once."""
        command = [str(Path(sys.executable).with_name("prompt")), *map(str, arguments)]
        environment = {**os.environ, **self.environment, **settings}
        done = subprocess.run(command, env=environment, capture_output=not show, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout or ""

    @contextmanager
    def activator(self, **settings: str) -> Iterator[Service]:
        """Run the worker that messages are pushed to."""
        with Service(
            "activator", self._push_settings("activator", self.topology.activator) | settings
        ) as run:
            yield run

    @contextmanager
    def puller(self, **settings: str) -> Iterator[Service]:
        """Run the worker that pulls its messages."""
        own = {"PROMPT_PUBSUB__SUBSCRIPTION": self.topology.activator}
        with Service("activator", {**self.environment, **own, **settings}, "main.py") as run:
            yield run

    @contextmanager
    def arrivals(self, **settings: str) -> Iterator[Service]:
        """Run the arrivals service."""
        own = self._push_settings("arrivals", self.topology.arrivals)
        with Service("arrivals", own | settings) as run:
            yield run

    @contextmanager
    def push(
        self, subscription: str, *services: Service, audience: str, **options: Any
    ) -> Iterator[PushAgent]:
        """Push the messages of a subscription to services, as Pub/Sub and Cloud Run do."""
        with PushAgent(
            self.pubsub.host,
            subscription,
            [service.url for service in services],
            issuer=self.issuer,
            audience=audience,
            email=PUSHER,
            max_attempts=ATTEMPTS,
            **options,
        ) as agent:
            yield agent

    def restart_gcs(self) -> None:
        """Start the object store again; its notifications are those of the old process."""
        self.gcs.restart()
        notify(self.gcs.url, self.topology.incoming, self.topology.image_arrived)

    def _push_settings(self, audience: str, subscription: str) -> dict[str, str]:
        return {
            **self.environment,
            "PROMPT_PUSH__AUDIENCE": audience,
            "PROMPT_PUSH__CALLERS": json.dumps([PUSHER]),
            "PROMPT_PUSH__KEYS_URL": self.issuer.jwks_url,
            "PROMPT_PUSH__SUBSCRIPTIONS": json.dumps([subscription]),
        }

    def _settings(self) -> dict[str, str]:
        products = f"gs://{self.topology.products}"
        places = {
            "butler": f"{products}/butler",
            "registry": self.postgres.new_database(),
            "incoming": f"gs://{self.topology.incoming}",
            "arrivals": f"{products}/arrivals",
            "decisions": f"{products}/decisions",
            "alerts": f"{products}/alerts",
            "metrics": f"{products}/metrics",
            "overrides": f"{products}/overrides",
            "ledger": self.postgres.new_database(),
        }
        return {
            **{f"PROMPT_REPOSITORY__{name.upper()}": place for name, place in places.items()},
            "PROMPT_APDB__URL": self.postgres.new_database(),
            "PROMPT_PUBSUB__TOPIC": self.topology.next_visit,
            "PROMPT_PUBSUB__LEASE_S": str(LEASE),
            "PROMPT_WORKER__LEASE_S": str(LEASE),
            "PROMPT_INSTRUMENTS__SERVED": '["LATISS"]',
            "PROMPT_REPO": str(self.repo),
            "STORAGE_EMULATOR_HOST": self.gcs.url,
            "PUBSUB_EMULATOR_HOST": self._proxy or self.pubsub.host,
        }
