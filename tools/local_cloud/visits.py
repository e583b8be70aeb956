"""Visits to build tests with."""

from typing import Any

from prompt_processing.domain.visit import DetectorVisit

EVENT: dict[str, Any] = {
    "salIndex": 2,
    "scriptSalIndex": 1,
    "groupId": "2026-03-15T01:00:00.000",
    "coordinateSystem": 2,
    "position": [10.0, -20.0],
    "startTime": 1.77e9,
    "rotationSystem": 2,
    "cameraAngle": 0.0,
    "filters": "SDSSr_65mm~empty",
    "dome": 2,
    "duration": 30.0,
    "nimages": 1,
    "instrument": "LATISS",
    "survey": "BLOCK-1",
    "totalCheckpoints": 0,
    "private_sndStamp": 1.77e9 - 25.0,
    "private_efdStamp": 1.77e9 - 62.0,
}
"""A valid ``nextVisit`` event."""


def detector_visit(**changes: Any) -> DetectorVisit:
    """Return the message of that event for detector 0, with some fields changed."""
    fields = {name: value for name, value in EVENT.items() if name != "private_efdStamp"}
    return DetectorVisit(**{**fields, "detector": 0, **changes})
