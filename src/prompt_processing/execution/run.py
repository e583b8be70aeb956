"""Running a pipeline on one detector-visit in this process: inputs from memory, outputs in memory."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from lsst.daf.butler import DatasetRef, DatasetType, DimensionRecord, Quantum
from lsst.pipe.base.pipeline_graph import TaskNode
from lsst.pipe.base.single_quantum_executor import SingleQuantumExecutor

from prompt_processing.domain.errors import MissingInputError, PromptError
from prompt_processing.execution.data_ids import DataIds
from prompt_processing.execution.graphs import VisitGraph
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
        """Replace an output, if the pipeline made it."""
        for ref in self.datasets:
            if ref.datasetType.name == dataset_type:
                self.datasets[ref] = value


class VisitRun:
    """One pipeline on one detector-visit.

    Quanta are made by hand, one for each task: a detector-visit has one value of each dimension, so there is
    nothing that a database would have to be asked.

    Parameters
    ----------
    graph
        The pipeline.
    run
        RUN collection of the outputs.
    data_ids
        Dimension records; those of exposure and visit may be added later.
    """

    def __init__(self, graph: VisitGraph, run: str, data_ids: DataIds) -> None:
        self.graph = graph
        self.run = run
        self.data_ids = data_ids
        self.memory = MemoryButler(graph.graph.universe)
        self._inputs: dict[str, list[DatasetRef]] = {}
        self._executor = SingleQuantumExecutor(butler=self.memory, assume_no_existing_outputs=True)
        self._own: set[str] = set()
        self._done: set[str] = set()
        for name, obj in graph.init_outputs.items():
            self.memory.hold(obj, self._init_ref(name))

    @property
    def inputs(self) -> dict[str, list[DatasetRef]]:
        """References of what the pipeline starts from, by dataset type."""
        return {name: list(refs) for name, refs in self._inputs.items()}

    def give(self, ref: DatasetRef, obj: Any) -> None:
        """Give it an input."""
        self.memory.hold(obj, ref)
        self._inputs.setdefault(ref.datasetType.name, []).append(ref)

    def give_own(self, name: str, obj: Any) -> DatasetRef:
        """Give it an input that is made for this detector-visit, and return its reference.

        Parameters
        ----------
        name
            Name of a dataset type of the graph.
        obj
            The dataset. It is one of the products, in the run of the outputs.
        """
        ref = self.data_ids.ref(self.graph.dataset_type(name), self.run)
        self.give(ref, obj)
        self._own.add(name)
        return ref

    def add_records(self, records: Iterable[DimensionRecord]) -> None:
        """Add what the raw has told, and leave out inputs that turn out not to be of this visit."""
        self.data_ids.add(records)
        known = self.data_ids.values
        for name, refs in self._inputs.items():
            self._inputs[name] = [
                ref for ref in refs if all(known.get(k, v) == v for k, v in ref.dataId.mapping.items())
            ]

    def execute(
        self,
        labels: Iterable[str],
        *,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Run tasks that have not run yet.

        Parameters
        ----------
        labels
            In the order of the data flow.
        stage
            Each task runs inside the context that this makes of its label, for example to measure its time.

        Raises
        ------
        MissingInputError
            If a task lacks an input.
        Exception
            Whatever a task raises; tasks raise `~prompt_processing.domain.errors.PromptError` on bad pixels.
        """
        for label in labels:
            if label in self._done:
                continue
            with stage(label), _our_errors():
                quantum = self._quantum(self.graph.graph.tasks[label])
                self._executor.execute(self.graph.graph.tasks[label], quantum, uuid.uuid4())
            self._done.add(label)
            self._release(label)

    def outputs(self) -> "Outputs":
        """Return what has been made so far."""
        return Outputs(self.memory.outputs)

    def init_outputs(self) -> dict[DatasetRef, Any]:
        """Return configurations, schemas and package versions, which a run holds once."""
        return {self._init_ref(name): obj for name, obj in self.graph.init_outputs.items()}

    def _release(self, label: str) -> None:
        """Let go of inputs that only tasks have needed that are done, such as the patches of a template."""
        for edge in self.graph.graph.tasks[label].iter_all_inputs():
            name = edge.parent_dataset_type_name
            users = {task.label for task in self.graph.graph.consumers_of(name)}
            if name in self.graph.inputs and name not in self._own and users <= self._done:
                self.memory.pruneDatasets(self._inputs.get(name, []))

    def _quantum(self, task: TaskNode) -> Quantum:
        inputs: dict[DatasetType, list[DatasetRef]] = {}
        for edge in task.iter_all_inputs():
            refs = self._find(edge.parent_dataset_type_name)
            if not refs and edge.parent_dataset_type_name in self.graph.required:
                raise MissingInputError(f"task {task.label} has no {edge.parent_dataset_type_name}")
            adapted = edge.adapt_dataset_type(self.graph.dataset_type(edge.parent_dataset_type_name))
            inputs[adapted] = [edge.adapt_dataset_ref(ref) for ref in refs]
        outputs = {}
        for edge in task.iter_all_outputs():
            ref = self.data_ids.ref(self.graph.dataset_type(edge.parent_dataset_type_name), self.run)
            outputs[edge.adapt_dataset_type(ref.datasetType)] = [edge.adapt_dataset_ref(ref)]
        init_inputs = {
            edge.adapt_dataset_type(ref.datasetType): edge.adapt_dataset_ref(ref)
            for edge in task.init.iter_all_inputs()
            for ref in [self._init_ref(edge.parent_dataset_type_name)]
        }
        return Quantum(
            taskName=task.task_class_name,
            taskClass=task.task_class,
            dataId=self.data_ids.make(task.dimensions),
            initInputs=init_inputs,
            inputs=inputs,
            outputs=outputs,
        )

    def _find(self, name: str) -> list[DatasetRef]:
        """Return the references of an input, or of what another task makes."""
        if name in self.graph.inputs:
            return self._inputs.get(name, [])
        return [self.data_ids.ref(self.graph.dataset_type(name), self.run)]

    def _init_ref(self, name: str) -> DatasetRef:
        return self.data_ids.ref(self.graph.dataset_type(name), self.run)


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
