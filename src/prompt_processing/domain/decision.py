"""What a decision is about, and its key; its content is in `prompt_processing.delivery.decision`."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from prompt_processing.domain.raws import visit_path

FORMAT_VERSION: Final = 2
ENDING: Final = ".zip"
"""What the key of a decision ends with."""


class DecisionInfo(BaseModel):
    """What a decision is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    instrument: str = Field(min_length=1)
    group: str = Field(min_length=1)
    detector: int = Field(ge=0)
    day_obs: int = Field(description="Observing day of the event's startTime, YYYYMMDD")
    exposure: int = Field(ge=0, description="Number of the first snap's exposure")
    visit: int = Field(ge=0, description="Number of the visit")
    midpoint_mjd_tai: float = Field(description="Middle of the visit [d]; the time of the APDB's object rows")
    shutter_close_mjd_tai: float = Field(description="End of the exposure [d]; latency counts from here")
    raws: tuple[str, ...] = Field(description="Keys of the raws in the landing store, in order of the snaps")
    attempt: int = Field(ge=1, description="Attempt that decided")
    pipeline: str = Field(description="Pipeline that was run")
    alert_schema_id: int = Field(ge=0, description="Schema of the packets; 0 when there can be none")
    flags: tuple[str, ...] = Field(default=(), description="Flags of the outcome: fallback, missing-snap ...")


def decision_path(instrument: str, day_obs: int, group: str, detector: int) -> str:
    """Return the key of a decision, relative to the root of the decisions.

    It depends on nothing but the message, so a retry finds it before it has seen the image.

    Parameters
    ----------
    instrument
        Short name of the instrument.
    day_obs
        Observing day of the event's ``startTime``, YYYYMMDD.
    group
        Group name, not escaped.
    detector
        Number of the detector.
    """
    return f"{visit_path(instrument, day_obs, group, detector)}{ENDING}"
