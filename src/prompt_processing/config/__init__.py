"""Settings of a repository and of the services."""

from prompt_processing.config.events import BridgeSettings, KafkaSettings, RedisSettings, WebhookSettings
from prompt_processing.config.load import (
    FILE_NAME,
    HIDDEN,
    Settings,
    environment_name,
    origin,
    plain,
    redact,
    redacted,
    sections,
    write_default,
)
from prompt_processing.config.secrets import check_confidential, reveal
from prompt_processing.config.sections import (
    InstrumentSettings,
    PipelineSettings,
    PubSubSettings,
    PushSettings,
    RepositorySettings,
    Section,
    WorkerSettings,
    shipped_pipelines,
)
from prompt_processing.config.stores import SqlApdbSettings

__all__ = [
    "FILE_NAME",
    "HIDDEN",
    "BridgeSettings",
    "InstrumentSettings",
    "KafkaSettings",
    "PipelineSettings",
    "PubSubSettings",
    "PushSettings",
    "RedisSettings",
    "RepositorySettings",
    "Section",
    "Settings",
    "SqlApdbSettings",
    "WebhookSettings",
    "WorkerSettings",
    "check_confidential",
    "environment_name",
    "origin",
    "plain",
    "redact",
    "redacted",
    "reveal",
    "sections",
    "shipped_pipelines",
    "write_default",
]
