"""Settings of a repository and of the services."""

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

__all__ = [
    "FILE_NAME",
    "HIDDEN",
    "InstrumentSettings",
    "PipelineSettings",
    "PubSubSettings",
    "PushSettings",
    "RepositorySettings",
    "Section",
    "Settings",
    "WorkerSettings",
    "environment_name",
    "origin",
    "plain",
    "redact",
    "redacted",
    "sections",
    "shipped_pipelines",
    "write_default",
]
