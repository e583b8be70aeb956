"""The worker on Google Cloud, in two ways.

``gunicorn`` serves the function `activator`, to which Pub/Sub pushes one visit at a time (Cloud Run service).
``python main.py`` pulls the messages itself: a Cloud Run worker pool, or a cluster.
"""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_processing.runtime import fork_server, logs

if TYPE_CHECKING:
    from flask import Request, Response

REPO = Path(os.environ.get("PROMPT_REPO", "."))
set_up_logging = partial(logs.configure, ("prompt_processing=INFO",), as_json=True)
set_up_logging()
if __name__ != "__mp_main__":  # as which each engine of a pulling worker imports this file
    fork_server.start("prompt_processing.factory.engine_imports")  # beside all that this process imports

if __name__ == "__main__":
    from prompt_processing.factory.run import run_worker
    from prompt_processing.runtime.health import Health
    from prompt_processing.runtime.signals import stop_on_signals

    stop = stop_on_signals()
    with Health() as health:
        run_worker(REPO, engines=None, stop=stop, set_up_logging=set_up_logging, on_ready=health.ready)
elif __name__ != "__mp_main__":
    from prompt_processing.serving.activator import start_activator

    border = start_activator(REPO, set_up_logging)

    def activator(request: "Request") -> "Response":
        """Answer a request."""
        return border.serve(request)
