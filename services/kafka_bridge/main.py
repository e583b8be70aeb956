"""The bridge: the observatory's events on Kafka become one message per detector.

``python main.py`` runs until SIGTERM: a Cloud Run worker pool, or a cluster.
"""

import os
from pathlib import Path

from prompt_processing.factory.bridge import BridgeFactory
from prompt_processing.runtime import logs
from prompt_processing.runtime.health import Health
from prompt_processing.runtime.signals import stop_on_signals

logs.configure(("prompt_processing=INFO",), as_json=True)
stop = stop_on_signals()
factory = BridgeFactory(Path(os.environ.get("PROMPT_REPO", ".")))
bridge = factory.bridge(factory.group_source())
with Health(
    is_alive=bridge.is_alive, is_ready=factory.metrics.is_ready, metrics=factory.metrics.page
) as health:
    health.ready()
    bridge.run(stop)
