"""The relay: sends alerts and metrics that could not be sent when their visit was processed.

``python main.py`` runs until SIGTERM: a Cloud Run worker pool, or a cluster.
"""

import os
from pathlib import Path

from prompt_processing.factory.relay import open_relay
from prompt_processing.runtime import logs
from prompt_processing.runtime.health import Health
from prompt_processing.runtime.signals import stop_on_signals

logs.configure(("prompt_processing=INFO",), as_json=True)
stop = stop_on_signals()
relay, metrics = open_relay(Path(os.environ.get("PROMPT_REPO", ".")))
with Health(is_alive=relay.is_alive, is_ready=metrics.is_ready, metrics=metrics.page) as health:
    health.ready()
    relay.run(stop)
