"""Which quanta, and running them: a quantum graph in, outputs in memory out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsst.daf.butler import Butler, CollectionType, DatasetRef
from lsst.pipe.base import Pipeline
from lsst.pipe.base.quantum_graph import PredictedQuantumGraph
from lsst.pipe.base.separable_pipeline_executor import SeparablePipelineExecutor
from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor

from prompt_processing.domain.errors import MissingInputError, PromptError
from prompt_processing.execution.memory import MemoryButler


@dataclass(slots=True)
class Outputs:
    """What a run made, in memory."""

    datasets: dict[DatasetRef, Any]
    """Every output by its reference: images, tables, task metadata and logs."""

    def get(self, dataset_type: str) -> Any:
        """Return the output of a dataset type, or `None` if the pipeline does not make it.

        Raises
        ------
        LookupError
            If there is more than one.
        """
        found = [obj for ref, obj in self.datasets.items() if ref.datasetType.name == dataset_type]
        if len(found) > 1:
            raise LookupError(f"{len(found)} datasets of type {dataset_type} in the outputs")
        return found[0] if found else None

    def replace(self, dataset_type: str, value: Any) -> None:
        """Put something else in the place of an output, if the pipeline made it."""
        for ref in self.datasets:
            if ref.datasetType.name == dataset_type:
                self.datasets[ref] = value


def build_graph(
    butler: Butler, pipeline: Path, *, inputs: Sequence[str], output_run: str, where: str
) -> PredictedQuantumGraph:
    """Build the quantum graph of a pipeline for the data that ``where`` selects.

    Parameters
    ----------
    butler
        Writeable Butler with all inputs; dataset types of the outputs are registered in it.
    pipeline
        Pipeline YAML.
    inputs
        Collections to search for inputs, in order.
    output_run
        RUN collection of the outputs; made if needed.
    where
        Data query, for example ``exposure=2026031500001 AND detector=0 AND instrument='LATISS'``.

    Raises
    ------
    MissingInputError
        If nothing can be run: some input of the first task is not there.
    """
    butler.collections.register(output_run, CollectionType.RUN)
    executor = SeparablePipelineExecutor(butler.clone(collections=inputs, run=output_run))
    graph = executor.build_quantum_graph(Pipeline.from_uri(str(pipeline)), where=where)
    if not len(graph):
        raise MissingInputError(f"{pipeline.name} finds nothing to run for {where} in {', '.join(inputs)}")
    graph.pipeline_graph.register_dataset_types(butler)
    return graph


def run(
    graph: PredictedQuantumGraph,
    inputs: Butler,
    *,
    stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> Outputs:
    """Run every quantum of a graph in this process, in order, with all outputs in memory.

    Parameters
    ----------
    graph
        The quanta.
    inputs
        Butler that holds the graph's overall inputs; nothing is written to it.
    stage
        Each task runs inside the context that this makes of its label, for example to measure its time.

    Raises
    ------
    Exception
        Whatever a task raises; tasks raise `~prompt_processing.domain.errors.PromptError` on bad pixels.
    """
    memory = MemoryButler(inputs)
    executor = SingleQuantumExecutor(butler=memory, assume_no_existing_outputs=True)
    quanta = graph.build_execution_quanta()
    graph.write_init_outputs(memory, skip_existing=False)
    # The tasks of a pipeline graph are in the order of the data flow.
    for label, task_node in graph.pipeline_graph.tasks.items():
        for quantum_id in graph.quanta_by_task.get(label, {}).values():
            with stage(label), _our_errors():
                executor.execute(task_node, quanta[quantum_id], quantum_id)
    return Outputs(memory.outputs)


@contextmanager
def _our_errors() -> Iterator[None]:
    """Let an error of ours out as it is, where the middleware has wrapped it (a formatter's, for example)."""
    try:
        yield
    except PromptError:
        raise
    except Exception as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, PromptError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from error


def persist(outputs: Outputs, butler: Butler, dataset_types: Iterable[str] | None = None) -> list[DatasetRef]:
    """Write outputs into a Butler repository, and return the references of what was written.

    Parameters
    ----------
    outputs
        Result of `run`; its references must be of the repository of ``butler``.
    butler
        Writeable Butler.
    dataset_types
        Names of the dataset types to write; all of them when omitted.
    """
    wanted = None if dataset_types is None else set(dataset_types)
    written = []
    for ref, obj in outputs.datasets.items():
        if wanted is None or ref.datasetType.name in wanted:
            written.append(butler.put(obj, ref))
    return written
