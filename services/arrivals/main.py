"""The arrivals service: Cloud Storage says by Pub/Sub which images have come, and each is noted."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_processing.runtime import logs
from prompt_processing.serving.arrivals import start_arrivals

if TYPE_CHECKING:
    from flask import Request, Response

logs.configure(("prompt_processing=INFO",), as_json=True)
border = start_arrivals(Path(os.environ.get("PROMPT_REPO", ".")))


def arrivals(request: "Request") -> "Response":
    """Answer a request."""
    return border.serve(request)
