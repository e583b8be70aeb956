"""Pipelines as they are run for one detector-visit: read and resolved once, then kept."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from lsst.daf.butler import Butler, DatasetType
from lsst.pipe.base import Pipeline
from lsst.pipe.base.pipeline_graph import PipelineGraph, TaskNode
from lsst.utils.packages import Packages

from prompt_processing.domain.errors import ConfigError

DIMENSIONS: Final = frozenset(
    {"instrument", "detector", "group", "exposure", "visit", "skymap", "physical_filter", "band", "day_obs"}
)
"""Dimensions that have one value each for a detector-visit."""


@dataclass(frozen=True, slots=True, eq=False)
class VisitGraph:
    """A pipeline in which every task runs once for a detector-visit."""

    path: Path
    """File it was read from."""
    graph: PipelineGraph
    """Its graph, resolved."""
    inputs: dict[str, DatasetType]
    """Dataset types that it needs and does not make, by name."""
    required: frozenset[str]
    """Those of them without which a task cannot run."""
    early: tuple[str, ...]
    """Labels of the tasks that need nothing that comes from a raw, in their order."""
    late: tuple[str, ...]
    """Labels of the others, in their order."""
    init_outputs: dict[str, Any]
    """Configurations, schemas and package versions, by dataset type."""
    version: str
    """Fingerprint of all configurations and package versions: what is made under it is made alike."""

    @property
    def name(self) -> str:
        """Name of the pipeline: that of its file."""
        return self.path.stem

    def dataset_type(self, name: str) -> DatasetType:
        """Return a dataset type of the graph, that of the package versions among them."""
        packages = self.graph.packages_dataset_type
        return packages if name == packages.name else self.graph.dataset_types[name].dataset_type


def load_graph(path: Path, butler: Butler) -> VisitGraph:
    """Return the graph of a pipeline, from memory if the file has not changed.

    Parameters
    ----------
    path
        Pipeline YAML.
    butler
        Butler whose dataset types it refers to; all repositories of a process are expected to agree on them.

    Raises
    ------
    ConfigError
        If the file is missing or no pipeline, a task cannot be imported or configured, a dataset type is
        another one in the repository, or a task does not run once per detector-visit.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(f"{path}: there is no such pipeline file ({error.strerror})") from error
    return _load(path, changed, _Registry(butler))


class _Registry:
    """A Butler that does not count as a part of the key under which a graph is kept."""

    def __init__(self, butler: Butler) -> None:
        self.butler = butler

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Registry)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=32)
def _load(path: Path, changed: int, registry: _Registry) -> VisitGraph:
    del changed  # a part of the key
    try:
        graph = Pipeline.from_uri(str(path)).to_graph(registry=registry.butler.registry)
        init_outputs = dict(_init_outputs(graph))
    except Exception as error:
        # Whatever YAML, the configuration or the code of a task raises.
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    for task in graph.tasks.values():
        _check_dimensions(path, task)
    inputs = {name: node.dataset_type for name, node in graph.iter_overall_inputs()}
    early = tuple(_early(graph))
    return VisitGraph(
        path=path,
        graph=graph,
        inputs=inputs,
        required=frozenset(_required(graph, inputs)),
        early=early,
        late=tuple(label for label in graph.tasks if label not in early),
        init_outputs=init_outputs,
        version=_version(graph),
    )


def _check_dimensions(path: Path, task: TaskNode) -> None:
    other = sorted(set(task.dimensions.names) - DIMENSIONS)
    if other:
        raise ConfigError(
            f"{path}: task {task.label} has dimension {', '.join(other)}, so it does not run once per "
            "detector and visit"
        )


def _early(graph: PipelineGraph) -> Iterator[str]:
    """Yield the tasks that can run before there is a raw."""
    from_raw = {"raw"}
    for label, task in graph.tasks.items():
        names = {edge.parent_dataset_type_name for edge in task.iter_all_inputs()}
        waits = bool(names & from_raw) or bool(set(task.dimensions.names) & {"exposure", "visit"})
        if waits:
            from_raw |= {edge.parent_dataset_type_name for edge in task.iter_all_outputs()}
        else:
            yield label


def _required(graph: PipelineGraph, inputs: dict[str, DatasetType]) -> Iterator[str]:
    for task in graph.tasks.values():
        connections = task.get_connections()
        for edge in task.iter_all_inputs():
            minimum = getattr(connections.allConnections.get(edge.connection_name), "minimum", 1)
            if edge.parent_dataset_type_name in inputs and minimum > 0:
                yield edge.parent_dataset_type_name


def _init_outputs(graph: PipelineGraph) -> Iterator[tuple[str, Any]]:
    """Yield what a run holds beside its data: configurations, schemas and the versions of the packages."""
    made: list[tuple[Any, DatasetType]] = []
    graph.instantiate_tasks(init_outputs=made)
    yield from ((dataset_type.name, obj) for obj, dataset_type in made)
    for task in graph.tasks.values():
        yield task.init.config_output.parent_dataset_type_name, task.config
    yield graph.packages_dataset_type.name, package_versions()


@lru_cache
def package_versions() -> Packages:
    """Return the versions of everything that is installed, as the middleware records them; 0.2 s once."""
    # That there is no eups, which it would ask as well, is no news.
    logging.getLogger("lsst.utils.packages").setLevel(logging.ERROR)
    return Packages.fromSystem()


def _version(graph: PipelineGraph) -> str:
    configs = [f"{label}\n{task.get_config_str()}" for label, task in graph.tasks.items()]
    return hashlib.sha1("\n".join([*configs, code_version()]).encode(), usedforsecurity=False).hexdigest()[:7]


@lru_cache
def code_version() -> str:
    """Return names and versions of everything that is installed, and a hash of this program's own code."""
    own = hashlib.sha1(usedforsecurity=False)
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        own.update(file.read_bytes())
    return "\n".join(
        [*sorted({f"{found.name}=={found.version}" for found in distributions()}), own.hexdigest()]
    )
