"""Follows docs/how-to/add-an-adapter.md with a metrics sink that appends lines to a file."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prompt_processing.delivery.metrics import VisitMetrics
from prompt_processing.delivery.port import MetricsSink
from prompt_processing.domain.clock import WallClock
from prompt_processing.factory import worker
from prompt_processing.factory.create import create_repository
from prompt_processing.factory.stores import Stores


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


def test_a_toy_sink_gets_the_metrics_of_a_worker(tmp_path, monkeypatch):
    create_repository(tmp_path)
    monkeypatch.setattr(worker, "Stores", WithLines)
    factory = worker.Factory(tmp_path, WallClock())
    metrics = VisitMetrics(
        instrument="LATISS",
        detector=0,
        visit=2026031500101,
        exposure=2026031500101,
        group="2026-03-15T01:00:00.000",
        day_obs=20260315,
        band="r",
        physical_filter="SDSSr_65mm~empty",
        run="LATISS/prompt",
        version="1",
        timestamp=1773536400.0,
        measurements=(),
    )
    factory.stores.metrics.send(metrics)
    assert (tmp_path / "metrics" / "lines.jsonl").read_text() == '{"visit": 2026031500101}\n'
