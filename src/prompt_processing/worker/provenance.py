"""Where the products of a detector-visit come from, as a dataset beside them."""

from importlib.metadata import version
from typing import Any, Final

from prompt_processing.delivery.decision import Decision
from prompt_processing.execution.run import VisitRun

PROVENANCE: Final = "prompt_provenance"
"""Name of the dataset type."""


def provenance(run: VisitRun, decision: Decision, missing: tuple[str, ...]) -> dict[str, Any]:
    """Return what a detector-visit was made from and by what.

    Configurations and the versions of all packages are datasets of the same RUN collection.

    Parameters
    ----------
    run
        The pipeline with its inputs.
    decision
        The decision.
    missing
        What better pipelines need and was not there.

    Returns
    -------
    provenance
        ``group``, ``pipeline``, ``version`` (fingerprint of configuration and code), ``software`` (version of
        this package), ``attempt``, ``flags``, ``raws`` (keys in the landing store), ``inputs`` (ids of the
        datasets by dataset type) and ``missing``.
    """
    return {
        "group": decision.info.group,
        "pipeline": run.graph.name,
        "version": run.graph.version,
        "software": version("prompt-processing"),
        "attempt": decision.info.attempt,
        "flags": list(decision.info.flags),
        "raws": list(decision.info.raws),
        "inputs": {name: sorted(str(ref.id) for ref in refs) for name, refs in sorted(run.inputs.items())},
        "missing": list(missing),
    }
