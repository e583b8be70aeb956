"""Follows docs/how-to/add-an-adapter.md with a metrics sink that appends lines to a file."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import MetricsSink
from prompt_processing.domain.clock import WallClock
from prompt_processing.factory import worker
from prompt_processing.factory.create import create_repository
from prompt_processing.factory.stores import Stores
from prompt_processing.messaging.memory import MemoryHints


@dataclass
class LineMetrics:
    """One class behind the port."""

    file: Path

    def send(self, metrics: VisitMetrics) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"visit": metrics.visit}) + "\n")


class WithLines(Stores):
    """One line in the stores."""

    @cached_property
    def metrics(self) -> MetricsSink:
        return LineMetrics(Path(self.settings.repository.metrics) / "lines.jsonl")
