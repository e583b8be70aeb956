"""The visit event of the observatory, and the message that a worker gets for each detector.

The fields and their meaning are those of the SAL topic ``lsst.sal.ScriptQueue.logevent_nextVisit`` (ts_xml);
the per-detector message is what the observatory's fan-out service sends, with a kind and a version added.
"""

# ruff: noqa: N815 (the names of the fields are those of SAL)

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from prompt_processing.domain.days import observing_days
from prompt_processing.domain.errors import EventError, RawError
from prompt_processing.domain.raws import MAX_GROUP, check_group, first_visit_path, visit_path

if TYPE_CHECKING:
    from astropy.time import Time

END_OF_TIME: Final = 1e10
"""Time that no visit is announced for [TAI s since 1970]: the year 2286."""
SCHEMA_VERSION: Final = 1
"""Version of the messages of this module; a receiver refuses any other."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _group(value: str) -> str:
    try:
        return check_group(value)
    except RawError as error:
        raise PydanticCustomError("group", "{text}", {"text": str(error)}) from error


Group = Annotated[str, Field(min_length=1, max_length=MAX_GROUP), AfterValidator(_group)]


def _version(value: Any) -> Any:
    """Accept the version as text, in which flat string maps carry it."""
    return SCHEMA_VERSION if value == str(SCHEMA_VERSION) else value


Version = Annotated[Literal[1], BeforeValidator(_version)]


class CoordinateSystem(IntEnum):
    """System of ``position``."""

    NONE = 1
    ICRS = 2
    OBSERVED = 3
    MOUNT = 4


class RotationSystem(IntEnum):
    """System of ``cameraAngle``."""

    NONE = 1
    SKY = 2
    HORIZON = 3
    MOUNT = 4


class Dome(IntEnum):
    """State of the dome that a visit needs."""

    CLOSED = 1
    OPEN = 2
    EITHER = 3


class DetectorVisitKey(NamedTuple):
    """What identifies the unit of work: one visit on one detector."""

    instrument: str
    group: str
    detector: int


def _position(value: Any) -> Any:
    """Accept the text form ``[ra, dec]``, which flat string maps such as a Redis stream's carry."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip().strip("[]()").split(",")]
    return value


class _Sal(BaseModel):
    """The fields that the event and the per-detector message share."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    salIndex: int = Field(description="Index of the script queue")
    scriptSalIndex: int = Field(description="Index of the script")
    groupId: Group = Field(description="Group of the images: the Butler's group name")
    coordinateSystem: CoordinateSystem = Field(
        description="System of position: 1 None 2 ICRS 3 Observed 4 Mount"
    )
    position: Annotated[tuple[Finite, Finite], BeforeValidator(_position)] = Field(
        description="Longitude and latitude of the boresight in coordinateSystem [deg]"
    )
    startTime: Finite = Field(description="Expected start of the visit [TAI s since 1970]")
    rotationSystem: RotationSystem = Field(
        description="System of cameraAngle: 1 None 2 Sky 3 Horizon 4 Mount"
    )
    cameraAngle: Finite = Field(
        description="Angle of the camera in rotationSystem [deg]; Sky: +Y from N through E"
    )
    filters: str = Field(description="Names of the filters, filter~grating, separated by commas; blank: any")
    dome: Dome = Field(description="1 Closed 2 Open 3 Either")
    duration: Annotated[Finite, Field(ge=0)] = Field(
        description="Duration of the script, without the first slew [s]"
    )
    nimages: Annotated[int, Field(ge=0)] = Field(description="Predicted number of images; 0: unknown")
    survey: str = Field(description="Survey, for example BLOCK-430")
    totalCheckpoints: Annotated[int, Field(ge=0)] = Field(description="0: unknown")
    private_sndStamp: Annotated[Finite, Field(gt=0)] = Field(
        description="Time of publication [TAI s since 1970]"
    )

    @property
    def published(self) -> "Time":
        """When the event was published (TAI)."""
        return _time(self.private_sndStamp)

    @property
    def predicted_shutter_close(self) -> "Time":
        """When the last image should be complete: ``startTime + duration`` (TAI).

        ``duration`` is that of the script, so it holds read-outs, filter changes and slews after the first:
        the shutter closes then or a little earlier, never much later.
        """
        return _time(self.startTime + self.duration)

    @property
    def filter_names(self) -> tuple[str, ...]:
        """The filters of the visit, each as ``filter~grating``; empty when any will do."""
        return tuple(name for name in (part.strip() for part in self.filters.split(",")) if name)

    @property
    def physical_filter(self) -> str | None:
        """The filter, if the event names exactly one."""
        names = self.filter_names
        return names[0] if len(names) == 1 else None

    @property
    def rotation(self) -> float | None:
        """Predicted angle of the camera's +Y from north through east [deg, 0 to 360].

        `None` if the event gives no angle on the sky.
        """
        return self.cameraAngle % 360.0 if self.rotationSystem is RotationSystem.SKY else None


class NextVisit(_Sal):
    """One ``nextVisit`` event: the public SAL fields and the two stamps that matter.

    Other ``private_*`` fields of the topic are dropped. The event may be no observation at all, in which
    case ``instrument`` is blank and the position means nothing.
    """

    instrument: Annotated[str, Field(max_length=64, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = Field(
        description="Short name of the instrument; blank: no observation"
    )
    private_efdStamp: Annotated[Finite, Field(gt=0)] = Field(
        description="Time of publication [UTC s since 1970]"
    )


class NextVisitCanceled(BaseModel):
    """One ``nextVisitCanceled`` event. It does not name the instrument."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    salIndex: int = Field(description="Index of the script queue")
    scriptSalIndex: int = Field(description="Index of the script")
    groupId: Group = Field(description="Group that is cancelled")
    private_efdStamp: Annotated[Finite, Field(gt=0)] = Field(
        description="Time of publication [UTC s since 1970]"
    )


class DetectorVisit(_Sal):
    """One visit on one detector: the message that a worker gets, and the unit of work."""

    kind: Literal["visit"] = "visit"
    schema_version: Version = SCHEMA_VERSION
    instrument: Name = Field(description="Short name of the instrument")
    detector: Annotated[int, Field(ge=0)] = Field(description="Number of the detector in the instrument")

    @model_validator(mode="after")
    def _check_pointing(self) -> "DetectorVisit":
        if self.coordinateSystem is not CoordinateSystem.ICRS:
            system = self.coordinateSystem
            raise _problem("coordinateSystem", f"must be ICRS (2), not {system.name} ({system.value})")
        if not -90.0 <= self.position[1] <= 90.0:
            raise _problem("position", f"declination {self.position[1]} is outside -90 to 90 deg")
        if not -360.0 <= self.position[0] <= 360.0:
            raise _problem("position", f"right ascension {self.position[0]} is outside -360 to 360 deg")
        if self.startTime <= 0:
            raise _problem("startTime", f"must be positive, not {self.startTime}")
        if self.startTime + self.duration > END_OF_TIME:
            raise _problem("startTime", f"{self.startTime} and {self.duration} s more never come")
        return self

    @property
    def key(self) -> DetectorVisitKey:
        """What identifies this unit of work."""
        return DetectorVisitKey(self.instrument, self.groupId, self.detector)

    @property
    def day_obs(self) -> int:
        """Observing day of the predicted start, YYYYMMDD."""
        return self.days[0]

    @property
    def days(self) -> tuple[int, int]:
        """`day_obs` and the day nearest to the start: near noon the raw may be of either."""
        return observing_days(self.startTime)

    @property
    def paths(self) -> tuple[str, ...]:
        """Keys, without endings, of what is stored about this unit of work; the last one names no day."""
        dated = (visit_path(self.instrument, day, self.groupId, self.detector) for day in self.days)
        return *dated, first_visit_path(*self.key)

    @property
    def ra(self) -> float:
        """Predicted right ascension of the boresight, ICRS [deg, 0 to 360]."""
        return self.position[0] % 360.0

    @property
    def dec(self) -> float:
        """Predicted declination of the boresight, ICRS [deg]."""
        return self.position[1]


class CancelVisit(BaseModel):
    """Word that a visit will not happen, for all detectors of an instrument."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["cancel"] = "cancel"
    schema_version: Version = SCHEMA_VERSION
    instrument: Name = Field(description="Short name of the instrument")
    groupId: Group = Field(description="Group that is cancelled")
    scriptSalIndex: int = Field(description="Index of the script")


class WarmUp(BaseModel):
    """Word that visits are near: the receiver gets ready and does nothing else."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["warmup"] = "warmup"
    schema_version: Version = SCHEMA_VERSION
    instrument: Name = Field(description="Short name of the instrument")


Message = Annotated[DetectorVisit | CancelVisit | WarmUp, Field(discriminator="kind")]
"""Everything that a worker may be sent."""

_MESSAGES: Final[TypeAdapter[DetectorVisit | CancelVisit | WarmUp]] = TypeAdapter(Message)


def parse_event(event: str | bytes | dict[str, Any]) -> NextVisit:
    """Read one ``nextVisit`` event.

    Parameters
    ----------
    event
        JSON text, or the decoded object.

    Raises
    ------
    EventError
        If it is not JSON, lacks a field or has a field that makes no sense; the message names the field.
    """
    try:
        if isinstance(event, dict):
            return NextVisit.model_validate(event)
        return NextVisit.model_validate_json(event)
    except ValidationError as error:
        raise EventError(f"nextVisit event: {_explain(error)}") from error


def parse_cancellation(event: dict[str, Any]) -> NextVisitCanceled:
    """Read one ``nextVisitCanceled`` event.

    Parameters
    ----------
    event
        The decoded object.

    Raises
    ------
    EventError
        If a field is missing or makes no sense; the message names the field.
    """
    try:
        return NextVisitCanceled.model_validate(event)
    except ValidationError as error:
        raise EventError(f"nextVisitCanceled event: {_explain(error)}") from error


def parse_message(message: str | bytes | dict[str, Any]) -> DetectorVisit | CancelVisit | WarmUp:
    """Read a message for a worker.

    Parameters
    ----------
    message
        JSON text, or the decoded object.

    Raises
    ------
    EventError
        If it is not JSON, of an unknown kind or version, or a field is missing or makes no sense.
    """
    try:
        if isinstance(message, dict):
            return _MESSAGES.validate_python(message)
        return _MESSAGES.validate_json(message)
    except ValidationError as error:
        raise EventError(f"visit message: {_explain(error)}") from error


def fan_out(event: NextVisit, detectors: Iterable[int]) -> list[DetectorVisit]:
    """Return the messages of an event, one per active detector in ascending order.

    Parameters
    ----------
    event
        The event. If it is no observation (blank instrument), there are no messages.
    detectors
        Numbers of the instrument's active detectors.

    Raises
    ------
    EventError
        If the event cannot be observed as it stands: a position that is not ICRS, or outside the sky.
    """
    if not event.instrument:
        return []
    fields = event.model_dump(exclude={"private_efdStamp"})
    try:
        return [DetectorVisit(**fields, detector=detector) for detector in sorted(set(detectors))]
    except ValidationError as error:
        raise EventError(f"nextVisit event of group {event.groupId!r}: {_explain(error)}") from error


def event_schema() -> dict[str, Any]:
    """Return the JSON schema of a ``nextVisit`` event."""
    return NextVisit.model_json_schema()


def message_schema() -> dict[str, Any]:
    """Return the JSON schema of the messages that a worker may be sent."""
    return _MESSAGES.json_schema()


def _time(seconds: float) -> "Time":
    # astropy takes 0.5 s to import, which commands that only show the ledger need not wait for.
    from prompt_processing.domain.clock import from_tai_seconds  # noqa: PLC0415

    return from_tai_seconds(seconds)


def _problem(field: str, text: str) -> PydanticCustomError:
    """Return an error of a check over several fields that still names the one that is wrong."""
    return PydanticCustomError("event", "{field}: {text}", {"field": field, "text": text})


def _explain(error: ValidationError) -> str:
    """Return what is wrong with each field in one line, without pydantic's links."""
    return "; ".join(_explain_field(details) for details in error.errors(include_url=False))


def _explain_field(details: ErrorDetails) -> str:
    location = [part for part in details["loc"] if part not in {"visit", "cancel", "warmup"}]
    name = ".".join(str(part) for part in location)
    if details["type"] == "missing":
        return f"field {name} is missing"
    if not name:
        return details["msg"]
    value = repr(details["input"])
    return f"field {name}: {details['msg']} (got {value if len(value) <= 60 else value[:57] + '...'})"
