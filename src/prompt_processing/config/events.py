"""The sections of the settings about events: where they come from, and where the bridge sends them."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from prompt_processing.config.secrets import Password
from prompt_processing.config.sections import Seconds, Section

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
TopicName = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]


class KafkaSettings(Section):
    """The Kafka that the observatory's events are on, and its schema registry."""

    header = "The Kafka that the observatory's events are on, and its schema registry"

    servers: str = Field(default="", description="Brokers to begin with: `host:port`, separated by commas")
    security: Literal["sasl_ssl", "ssl", "plaintext"] = Field(
        default="sasl_ssl",
        description="`sasl_ssl`: user and password over TLS; `ssl`: TLS alone; `plaintext`: neither, for "
        "tests on one machine. With TLS the broker's certificate and host name are always verified",
    )
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        default="SCRAM-SHA-512", description="How user and password are sent"
    )
    user: str = Field(default="", description="User")
    password: Password = Field(
        default=Password(""), description="Password, or the name of the secret that has it"
    )
    ca_file: str = Field(
        default="",
        description="File with the certificates of the authorities that are trusted, for brokers and "
        "registry; those of the system if empty",
    )
    registry: str = Field(
        default="", description="URL of the schema registry", pattern=r"^(https?://[^@\s]+)?$"
    )
    registry_user: str = Field(default="", description="User at the schema registry; none if empty")
    registry_password: Password = Field(
        default=Password(""), description="Password there, or the name of the secret that has it"
    )


class BridgeSettings(Section):
    """What the bridge reads, what it leaves out, and where it sends the rest."""

    header = "The bridge from Kafka: what it reads, what it leaves out, and where it sends the rest"
    removed = {"instance": "bridges of one group need no names"}  # noqa: RUF012 (see Section)

    sink: Literal["pubsub", "redis", "webhook", "kafka", "queue", "stdout"] = Field(
        default="pubsub",
        description="Where messages go: Pub/Sub (`pubsub.topic`), a Redis Stream, an HTTP server, a topic of "
        "the same Kafka, the queue of this repository, or standard output",
    )
    group: TopicName = Field(
        default="prompt-bridge",
        description="Consumer group. In one group one bridge reads each partition, and the others stand by; "
        "each group gets every event. What replays has groups whose names begin with this",
    )
    session_s: Annotated[float, Field(ge=1, le=60)] = Field(
        default=10.0,
        description="Time after which the brokers give the partitions of a silent bridge to another one, or "
        "to its successor [s]; at least their `group.min.session.timeout.ms`, which is 6 s by default",
    )
    visits_topic: TopicName = Field(
        default="lsst.sal.ScriptQueue.logevent_nextVisit", description="Topic of the visits"
    )
    cancel_topic: TopicName = Field(
        default="lsst.sal.ScriptQueue.logevent_nextVisitCanceled",
        description="Topic of the visits that are cancelled",
    )
    dead_letters_topic: TopicName = Field(
        default="prompt.bridge.dead-letters",
        description="Topic for records that cannot be read, of the same Kafka; the bridge must be allowed to "
        "write to it",
    )
    messages_topic: TopicName = Field(
        default="prompt.visits", description="Topic for the messages, if the sink is `kafka`"
    )
    skip_queues: tuple[int, ...] = Field(
        default=(999,), description="Script queues (`salIndex`) whose events are left out: tests"
    )
    skip_surveys: tuple[str, ...] = Field(
        default=(),
        description="Surveys whose visits are left out; `*` stands for anything, for example `BLOCK-T*`",
    )
    script_queues: Annotated[
        dict[int, Annotated[tuple[Name, ...], Field(min_length=1)]], Field(min_length=1)
    ] = Field(
        default={1: ("LSSTCam",), 2: ("LATISS",)},
        description="Instruments by script queue (`salIndex`): a cancelled visit does not name its "
        "instrument. One of a queue that is not named is cancelled for all of these",
    )
    drain_s: Annotated[float, Field(gt=0, le=6)] = Field(
        default=6.0, description="Time that the record in hand gets when the bridge is stopped [s]"
    )


class RedisSettings(Section):
    """The Redis Stream that messages are sent to."""

    header = "The Redis Stream that messages go to, if the bridge's sink is `redis`"

    url: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="Server: `redis://` or, with TLS, `rediss://[:password@]host:port/database`, or the name "
        "of the secret that has it",
    )
    stream: str = Field(
        default="instrument:{instrument}",
        description="Name of the stream; `{instrument}` stands for the instrument in lower case",
        pattern=r"^[^{}]*(\{instrument\})?[^{}]*$",
        min_length=1,
    )
    max_length: Annotated[int, Field(ge=1000)] = Field(
        default=100_000,
        description="Length that a stream is cut to, about. Redis drops the oldest entries even if nobody "
        "has read them: this must be far more than a night has",
    )


class WebhookSettings(Section):
    """The HTTP server that messages are sent to."""

    header = "The HTTP server that messages go to, if the bridge's sink is `webhook`"

    url: str = Field(default="", description="Where to post to", pattern=r"^(https?://[^@\s]+)?$")
    token: Password = Field(
        default=Password(""),
        description="Bearer token that is sent along, or the name of the secret that has it; none if empty",
    )
    concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=200, description="Most requests at the same time"
    )
    timeout_s: Seconds = Field(
        default=600.0,
        description="Longest wait for an answer [s]: a server that processes the visit before it answers "
        "needs as long as that takes",
    )
