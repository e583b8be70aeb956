"""Metrics of a visit on a detector, in the field's two forms: ``lsst.verify`` jobs and Sasquatch records."""

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from lsst.resources import ResourcePath

from prompt_processing.domain.raws import escape_group
from prompt_processing.storage import object_store

NAMESPACE: Final = "lsst.prompt"
"""Namespace of the topics in Sasquatch."""
REFERENCE_PACKAGE: Final = "prompt_processing"
_INT_MAX: Final = 2**31 - 1
# Every record has these, as text; what a visit on a detector does not have stays empty (RFC-763).
_DIMENSIONS: Final = (
    "detector",
    "patch",
    "skymap",
    "visit",
    "tract",
    "physical_filter",
    "instrument",
    "band",
    "exposure",
    "group",
    "day_obs",
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured value."""

    name: str
    """``package.metric``."""
    value: float
    unit: str = ""
    """Unit as astropy writes it."""
    description: str = ""

    def __post_init__(self) -> None:
        package, _, metric = self.name.partition(".")
        if not (package.isidentifier() and metric.isidentifier()):
            raise ValueError(f"{self.name!r} is not a name of the form package.metric")


@dataclass(frozen=True, slots=True)
class VisitMetrics:
    """What was measured of one visit on one detector.

    One that was skipped or has failed may lack visit, exposure, filter and run: they are `None`.
    """

    instrument: str
    detector: int
    visit: int | None
    exposure: int | None
    group: str
    day_obs: int
    band: str | None
    physical_filter: str | None
    run: str | None
    """RUN collection of the products."""
    version: str
    """Version of this software."""
    timestamp: float
    """When the visit was processed [UNIX s]."""
    measurements: tuple[Measurement, ...]
    status: str = "processed"
    """Status of the outcome."""
    reason: str = ""
    """Reason of the outcome; empty if it was processed."""

    @property
    def name(self) -> str:
        """Name among those of the observing day: by the visit, or by the group if the visit is not known."""
        place = escape_group(self.group) if self.visit is None else self.visit
        return f"{place}_{self.detector}"

    def to_json(self) -> str:
        """Return everything as text, for `from_json`; values that are not finite stay what they are."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the metrics that `to_json` has written."""
        fields = json.loads(text)
        measurements = tuple(Measurement(**item) for item in fields.pop("measurements"))
        return cls(**fields, measurements=measurements)

    def dimensions(self) -> dict[str, str]:
        """Return the data id as text."""
        values = {name: getattr(self, name, None) for name in _DIMENSIONS}
        return {name: "" if value is None else str(value) for name, value in values.items()}


def verify_job(metrics: VisitMetrics) -> dict[str, Any]:
    """Return metrics as the JSON form of an ``lsst.verify`` job."""
    return {
        "blobs": [],
        "measurements": [
            {
                "blob_refs": [],
                "identifier": _identifier(metrics, item.name).hex,
                "metric": item.name,
                "unit": item.unit,
                "value": item.value if math.isfinite(item.value) else None,
            }
            for item in metrics.measurements
        ],
        "meta": {
            **metrics.dimensions(),
            "run": metrics.run or "",
            "status": metrics.status,
            "reason": metrics.reason,
            "timestamp": metrics.timestamp,
        },
        "metrics": [
            {
                "description": item.description,
                "name": item.name,
                "reference": {"doc": "", "page": None, "url": ""},
                "tags": [],
                "unit": item.unit,
            }
            for item in metrics.measurements
        ],
        "specs": [],
    }


def sasquatch_records(metrics: VisitMetrics, namespace: str = NAMESPACE) -> dict[str, dict[str, Any]]:
    """Return the bodies of the requests to Sasquatch's REST proxy.

    Values that are not finite are left out. 64-bit identifiers are sent as text, as the observatory does.

    Parameters
    ----------
    metrics
        What was measured.
    namespace
        Namespace of the topics.

    Returns
    -------
    bodies
        Body by topic; one topic for each package of metrics.
    """
    topics: dict[str, dict[str, float]] = {}
    for item in metrics.measurements:
        package, _, metric = item.name.partition(".")
        values = topics.setdefault(package, {})
        if math.isfinite(item.value):
            values[metric] = item.value
    return {
        f"{namespace}.{package}": _record(metrics, namespace, package, values)
        for package, values in topics.items()
        if values
    }


class FolderMetrics:
    """A `~prompt_processing.delivery.port.MetricsSink` that writes JSON files.

    Parameters
    ----------
    store
        Root: ``verify/`` gets the jobs, ``sasquatch/<topic>/`` the records.
    """

    def __init__(self, store: ResourcePath) -> None:
        self._store = store

    def send(self, metrics: VisitMetrics) -> None:
        """Write metrics; see the port."""
        name = f"{metrics.instrument}/{metrics.day_obs}/{metrics.name}.json"
        files: dict[str, Mapping[str, Any]] = {f"verify/{name}": verify_job(metrics)}
        for topic, body in sasquatch_records(metrics).items():
            files[f"sasquatch/{topic}/{name}"] = body
        for key, content in files.items():
            place = object_store.child(self._store, key)
            text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
            object_store.write(place, text.encode())


def _record(
    metrics: VisitMetrics, namespace: str, package: str, values: Mapping[str, float]
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": str(_identifier(metrics, package)),
        "run": metrics.run or "",
        "dataset_type": f"{package}_metrics",
        "reference_package": REFERENCE_PACKAGE,
        "reference_package_version": metrics.version,
        "reference_package_timestamp": metrics.timestamp,
        "run_timestamp": metrics.timestamp,
        "timestamp": metrics.timestamp,
        "dataset_tag": "Generic",
        **metrics.dimensions(),
        "status": metrics.status,
        "reason": metrics.reason,
        **values,
    }
    schema = {
        "type": "record",
        "namespace": namespace,
        "name": package,
        "fields": [_field(name, value) for name, value in content.items()],
    }
    return {"value_schema": json.dumps(schema), "records": [{"value": content}]}


def _field(name: str, value: Any) -> dict[str, Any]:
    if "timestamp" in name:
        return {"name": name, "type": "double", "default": 0.0}
    if isinstance(value, str):
        return {"name": name, "type": "string", "default": ""}
    if isinstance(value, int) and abs(value) <= _INT_MAX:
        return {"name": name, "type": "int", "default": 0}
    return {"name": name, "type": "float", "default": 0.0}


def _identifier(metrics: VisitMetrics, name: str) -> uuid.UUID:
    """Return an identifier that is the same each time, so that a repeat can be told from a second value."""
    return uuid.uuid5(
        uuid.NAMESPACE_URL,
        f"{metrics.run}/{metrics.instrument}/{metrics.visit or metrics.group}/{metrics.detector}/{name}",
    )
