"""The ``nextVisit`` events of a night."""

import json
from collections.abc import Iterable
from typing import Any, Final

from astropy.time import Time

from prompt_processing.simulation.frames import CADENCE, Frame
from prompt_processing.simulation.headers import program

_ICRS: Final = 2
_ROTATION_SKY: Final = 2
_DOME_OPEN: Final = 2
_SAL_INDEX: Final = 2
_FIRST_SCRIPT: Final = 200_011


def next_visit(frame: Frame, number: int) -> dict[str, Any]:
    """Return the event that announces a science visit, with all fields of the SAL topic.

    Stamps are unix-like seconds: ``private_efdStamp`` in UTC, all others (and ``startTime``) in TAI, so that
    they differ by the leap seconds.

    Parameters
    ----------
    frame : `~prompt_processing.simulation.frames.Frame`
        The science exposure.
    number : `int`
        Number of the visit in the night, from 0.

    Returns
    -------
    event : `dict`
        Fields of the event by name.

    Raises
    ------
    ValueError
        If the exposure was not announced.
    """
    if frame.announced is None:
        raise ValueError(f"{frame.kind} exposure {frame.obs_id} is not announced")
    aim, detector = frame.aim, frame.detector
    sent = Time(frame.announced.isot, scale="tai")
    return {
        "private_efdStamp": _seconds(sent.utc),
        "private_kafkaStamp": _seconds(sent) + 0.002,
        "salIndex": _SAL_INDEX,
        "private_revCode": "3d9d6f3a",
        "private_sndStamp": _seconds(sent),
        "private_rcvStamp": 0.0,
        "private_seqNum": number + 1,
        "private_identity": f"ScriptQueue:{_SAL_INDEX}",
        "private_origin": 4021,
        "scriptSalIndex": _FIRST_SCRIPT + number,
        "groupId": frame.group,
        "coordinateSystem": _ICRS,
        "position": [aim.ra, aim.dec],
        # The script's own estimate: a little before the shutter really opens.
        "startTime": _seconds(Time(frame.begin.isot, scale="tai")) - 0.4,
        "rotationSystem": _ROTATION_SKY,
        "cameraAngle": aim.rotation,
        "filters": detector.filter if detector.instrument != "LATISS" else f"{detector.filter}~empty",
        "dome": _DOME_OPEN,
        "duration": CADENCE - 5.0,
        "nimages": 1,
        "instrument": detector.instrument,
        "survey": program(frame),
        "totalCheckpoints": 1,
    }


def events_lines(frames: Iterable[Frame]) -> str:
    """Return the text of ``events.jsonl``: one event per line, in the order of the visits.

    Parameters
    ----------
    frames
        Science exposures in the order of the visits.

    Returns
    -------
    text
        One JSON object per line.

    Raises
    ------
    ValueError
        If an exposure was not announced.
    """
    return "".join(f"{json.dumps(next_visit(frame, number))}\n" for number, frame in enumerate(frames))


def _seconds(time: Time) -> float:
    """Return seconds since 1970 counted in the time's own scale, as SAL does.

    ``Time.unix`` always counts in UTC; the same calendar text read as UTC counts in the scale it was
    written in.
    """
    return float(round(Time(time.isot, scale="utc").unix, 3))
