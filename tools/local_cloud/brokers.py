"""Servers that messages go through: Kafka with a schema registry, and Redis."""

import base64
import json
import os
import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar

import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from redis.backoff import NoBackoff
from redis.retry import Retry

from local_cloud.certificates import Authority
from local_cloud.jvm import JavaServer, fetch_jars
from local_cloud.kafka_line import KafkaLine
from local_cloud.servers import LOOPBACK, Server, ServerMissingError

OTHER_HOST = "elsewhere.example"
_ADMIN_TIMEOUT = 30.0

_KAFKA_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": (
        "PLAIN:PLAINTEXT,SCRAM:SASL_PLAINTEXT,TLS:SASL_SSL,OTHER:SASL_SSL,CONTROLLER:PLAINTEXT,LINE:PLAINTEXT"
    ),
    "inter.broker.listener.name": "PLAIN",
    "controller.listener.names": "CONTROLLER",
    "sasl.enabled.mechanisms": "SCRAM-SHA-512",
    # One broker: internal topics cannot be replicated, and nobody has to wait for others to join a group.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # Tests that kill bridges wait for the end of each one's session.
    "group.min.session.timeout.ms": "1000",
    # Whatever somebody has a right to, others have none to.
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "super.users": "User:ANONYMOUS",
    "log.cleaner.dedupe.buffer.size": "2097152",
    # After a kill, the controller refuses the broker until its old session has ended.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


class KafkaBroker(JavaServer):
    """A Kafka broker with its own controller. What it has acknowledged survives a kill.

    Whoever comes by the plain listener may do anything; a user comes by the others. Topics are made when
    somebody writes to them.
    """

    kind = "kafka"
    version = "4.4.0"
    oldest_java = 17
    n_ports = 7
    user: ClassVar[str] = "tester"
    password: ClassVar[str] = "tester-secret"  # noqa: S105 (it lives as long as the server)

    @property
    def bootstrap(self) -> str:
        """Address of the plain listener."""
        return self._addresses["PLAIN"]

    @property
    def scram(self) -> str:
        """Address for SASL_PLAINTEXT with SCRAM-SHA-512."""
        return self._addresses["SCRAM"]

    @property
    def tls(self) -> str:
        """Address for SASL_SSL with SCRAM-SHA-512."""
        return self._addresses["TLS"]

    @property
    def tls_wrong_host(self) -> str:
        """The same with a certificate for another host."""
        return self._addresses["OTHER"]

    @property
    def line(self) -> KafkaLine:
        """A line to a listener of its own, whose clients come by this line only; it is not open yet."""
        return KafkaLine(int(self._addresses["LINE"].rpartition(":")[2]), self.ports[-1])

    @property
    def ca_file(self) -> Path:
        """Certificate of the authority that signed the certificates of both."""
        return self._folder / "ca.pem"

    @property
    def wrong_ca_file(self) -> Path:
        """Certificate of an authority that signed nothing here."""
        return self._folder / "wrong-ca.pem"

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Make a topic, which must not exist."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        topic = NewTopic(name, partitions, 1, config=dict(config or {}))
        admin.create_topics([topic])[name].result(_ADMIN_TIMEOUT)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.delete_topics([name])[name].result(_ADMIN_TIMEOUT)

    def erase(self) -> None:
        """Empty the disk of a broker that does not run."""
        shutil.rmtree(self._folder / "data")
        self._format()

    def keys(self, topic: str) -> set[str]:
        """Return the keys of all records of a topic."""
        settings = {"bootstrap.servers": self.bootstrap, "group.id": "keys", "enable.partition.eof": True}
        consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
        found = set()
        try:
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            while (message := consumer.poll(1.0)) is not None and message.error() is None:
                found.add((message.key() or b"").decode())
        finally:
            consumer.close()
        return found

    def allow(self, resource: ResourceType, name: str, operation: AclOperation, user: str) -> None:
        """Give a user a right; others have none to this topic or group from now on."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
        right = AclBinding(resource, name, literal, f"User:{user}", "*", operation, allow)
        admin.create_acls([right])[right].result(_ADMIN_TIMEOUT)

    def start(self) -> None:
        """Start it, on the same ports as ever, and wait until it answers."""
        self._log_before = len(self.log())
        super().start()

    @property
    def _addresses(self) -> dict[str, str]:
        names = ("PLAIN", "SCRAM", "TLS", "OTHER", "CONTROLLER", "LINE")
        return {name: f"{LOOPBACK}:{port}" for name, port in zip(names, self.ports, strict=False)}

    def _fetch(self, folder: Path) -> None:
        fetch_jars(folder, f"org.apache.kafka:kafka_2.13:{self.version}", "org.slf4j:slf4j-simple:1.7.36")

    def _prepare(self) -> None:
        authority = Authority("Authority of tests")
        self.ca_file.write_bytes(authority.pem)
        self.wrong_ca_file.write_bytes(Authority("Other authority of tests").pem)
        listeners = {name: f"{name}://{address}" for name, address in self._addresses.items()}
        advertised = {**listeners, "LINE": f"LINE://{LOOPBACK}:{self.ports[-1]}"}
        del advertised["CONTROLLER"]
        settings = {
            **_KAFKA_SETTINGS,
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(advertised.values()),
            "controller.quorum.voters": f"1@{self._addresses['CONTROLLER']}",
            "log.dirs": str(self._folder / "data"),
        }
        for name in ("scram", "tls", "other"):
            module = "org.apache.kafka.common.security.scram.ScramLoginModule"
            settings[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = f"{module} required;"
        for name, host in {"tls": LOOPBACK, "other": OTHER_HOST}.items():
            keys = self._folder / f"{name}.pem"
            keys.write_bytes(authority.issue(host))
            settings[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
            settings[f"listener.name.{name}.ssl.keystore.location"] = str(keys)
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._format()

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        user = f"SCRAM-SHA-512=[name={self.user},password={self.password}]"
        arguments = ["format", f"--cluster-id={cluster}", "-c", str(self._settings), "--add-scram", user]
        done = subprocess.run(
            self._java_command(*self._class_path, "kafka.tools.StorageTool", *arguments),
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the storage of Kafka cannot be formatted: {done.stdout}{done.stderr}")

    @property
    def _settings(self) -> Path:
        return self._folder / "server.properties"

    @property
    def _class_path(self) -> list[str]:
        return ["-cp", os.pathsep.join(sorted(map(str, self._home.glob("*.jar"))))]

    def _arguments(self) -> list[str]:
        logging = {
            "defaultLogLevel": "warn",
            "log.kafka.server.KafkaRaftServer": "info",  # tells when it is ready
            "showDateTime": "true",
            "dateTimeFormat": "yyyy-MM-dd HH:mm:ss.SSS",
        }
        options = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in logging.items()]
        return ["-Xmx512m", *self._class_path, *options, "kafka.Kafka", str(self._settings)]

    def _answers(self) -> bool:
        return "Kafka Server started" in self.log()[self._log_before :]


class SchemaRegistry(JavaServer):
    """Apicurio Registry, which speaks the language of Confluent's. Schemas and their ids survive a kill.

    New versions of a schema must be BACKWARD compatible, as with Confluent's; each start sets that again.
    """

    kind = "schema-registry"
    version = "2.6.13.Final"
    oldest_java = 11

    @property
    def url(self) -> str:
        """Address as clients of Confluent's registry take it."""
        return f"http://{LOOPBACK}:{self.port}/apis/ccompat/v7"

    def _fetch(self, folder: Path) -> None:
        package = folder.with_name("package")
        fetch_jars(package, f"io.apicurio:apicurio-registry-app:{self.version}:tar.gz:all", alone=True)
        (packed,) = package.glob("*.tar.gz")
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")

    def _arguments(self) -> list[str]:
        (program,) = self._home.glob("*-runner.jar")
        settings = {
            "quarkus.http.host": LOOPBACK,
            "quarkus.http.port": str(self.port),
            # Without a delay, so that what was answered is in the file.
            "quarkus.datasource.jdbc.url": f"jdbc:h2:file:{self._folder}/registry;WRITE_DELAY=0",
        }
        options = [f"-D{name}={value}" for name, value in settings.items()]
        return ["-Xmx256m", *options, "-jar", str(program)]

    def _answers(self) -> bool:
        connection = HTTPConnection(LOOPBACK, self.port, timeout=10.0)
        content_type = "application/vnd.schemaregistry.v1+json"
        try:
            connection.request(
                "PUT",
                "/apis/ccompat/v7/config",
                json.dumps({"compatibility": "BACKWARD"}),
                {"Content-Type": content_type},
            )
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


class RedisServer(Server):
    """A Redis server with a data folder of its own. What it has acknowledged survives a kill."""

    def __init__(self) -> None:
        super().__init__()
        found = shutil.which("redis-server")
        if found is None:
            raise ServerMissingError("Redis is not installed (on Debian: apt-get install redis-server)")
        self._program = found

    @property
    def url(self) -> str:
        """Address of its first database."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _command(self) -> list[str]:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        return [
            self._program,
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ]

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False  # it does not listen yet, or still reads its file
