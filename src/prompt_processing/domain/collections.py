"""Names of the Butler collections, the same in the central and in every local repository."""

import hashlib
from typing import Final

REFCATS: Final = "refcats"
"""CHAINED collection of the reference catalogues, newest first."""
SKYMAPS: Final = "skymaps"
"""RUN of the definition of the skymap."""


def raws(instrument: str) -> str:
    """Return the RUN of all raws of an instrument."""
    return f"{instrument}/raw/all"


def calibs(instrument: str) -> str:
    """Return the CALIBRATION collection in which calibs are certified."""
    return f"{instrument}/calib"


def templates(instrument: str) -> str:
    """Return the CHAINED collection of the template coadds, newest first."""
    return f"{instrument}/templates"


def template_epochs(instrument: str) -> str:
    """Return the RUN of the single-frame products from which templates are built."""
    return f"{instrument}/templates/epochs"


def version_run(chain: str, name: str) -> str:
    """Return the RUN of one version of what a collection holds.

    Parameters
    ----------
    chain
        `REFCATS`, or what `calibs` or `templates` return.
    name
        Name of the version; `fingerprint` makes one from its inputs.
    """
    return f"{chain}/{name}"


def fingerprint(*inputs: str) -> str:
    """Return a short name that is the same whenever the inputs are, so that repeated work is recognised."""
    return hashlib.sha1("\n".join(inputs).encode(), usedforsecurity=False).hexdigest()[:12]


def inputs(instrument: str) -> tuple[str, ...]:
    """Return everything that a pipeline searches for its inputs, in order."""
    return raws(instrument), calibs(instrument), REFCATS, templates(instrument), SKYMAPS


def defaults(instrument: str) -> str:
    """Return the CHAINED collection of `inputs`, for people and for ``pipetask run -i``."""
    return f"{instrument}/defaults"


def outputs(instrument: str, day_obs: int, pipeline: str, version: str, *, kind: str = "output") -> str:
    """Return the RUN of what a pipeline makes of the visits of one observing day.

    Parameters
    ----------
    instrument
        Short name of the instrument.
    day_obs
        Observing day as YYYYMMDD.
    pipeline
        Name of the pipeline, such as ``ApPipe``.
    version
        Fingerprint of its configuration and of the code.
    kind
        ``output``, or ``canary`` for the share of visits whose products are kept apart.
    """
    text = str(day_obs)
    return f"{instrument}/prompt/{kind}-{text[:4]}-{text[4:6]}-{text[6:]}/{pipeline}/{version}"
