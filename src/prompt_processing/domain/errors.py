"""Every error that this system raises on purpose.

PromptError
├── RequestError              a request to a service is refused; ``status`` is that of the HTTP answer
│   ├── BadRequestError       it cannot be understood                      400
│   ├── UnauthenticatedError  it does not prove who sends it               401
│   ├── ForbiddenError        its sender may not do that                   403
│   └── TooLargeError         it is too large to be read                   413
├── RetriableError            try again later: RETRY, nothing is recorded as an outcome
│   ├── StoreError            a database or an object store did not answer
│   ├── StaleClaimError       another attempt has taken over; this one must write nothing more
│   ├── ImageArrivedError     an image came while its visit was being given up
│   ├── EngineLostError       the process that did the work ended, hung or grew too big
│   └── DrainedError          the worker is stopping; another one continues
└── PermanentError            trying again gives the same result: the outcome is recorded
    ├── EventError            a visit event that cannot be read            bad-event
    ├── RefusedMessageError   who gets the messages will never take one    refused-message
    ├── RawError              a raw that cannot be used                    bad-raw
    │   ├── HeaderError       a header card is missing or wrong            bad-header
    │   ├── WrongCameraError  the raw is of another instrument             wrong-instrument
    │   └── PlanMismatchError the raw is not what the event announced      plan-mismatch
    ├── MissingInputError     something the pipeline needs is not there    no-input
    │   ├── NoCalibError                                                   no-calibs
    │   ├── NoRefcatError                                                  no-refcat
    │   └── NoTemplateError                                                no-template
    ├── ScienceError          a measurement failed on these pixels         science
    │   ├── AstrometryError                                                astrometry
    │   ├── PhotometryError                                                photometry
    │   ├── PsfError                                                       psf
    │   └── SubtractionError                                               subtraction
    ├── RepositoryError       a repository is not as it should be          bad-repository
    ├── ConfigError           a setting is wrong                           bad-config
    ├── ConflictError         something else stands under the same id      conflict
    ├── GivenUpError          no attempt brings the visit to an end        given-up
    ├── OperationError        what an operator asks for cannot be done     not-possible
    └── InternalError         a fault of this system                       internal

``code`` is the reason code of the outcome; the message names what is wrong and where.
"""


class PromptError(Exception):
    """Base of all errors of this system."""

    code = "error"
    retriable = False


class RequestError(PromptError):
    """A request to a service is refused."""

    code = "refused"
    status = 400


class BadRequestError(RequestError):
    """A request cannot be understood."""


class UnauthenticatedError(RequestError):
    """A request does not prove who sends it."""

    status = 401


class ForbiddenError(RequestError):
    """The sender of a request may not do what it asks for."""

    status = 403


class TooLargeError(RequestError):
    """A request is too large to be read."""

    status = 413


class RetriableError(PromptError):
    """The same work may succeed later."""

    code = "retry"
    retriable = True


class StoreError(RetriableError):
    """A database or an object store did not answer."""

    code = "store"


class StaleClaimError(RetriableError):
    """Another attempt has taken over the visit; this one must write nothing more."""

    code = "stale-claim"


class ImageArrivedError(RetriableError):
    """An image came while its visit was being given up: the visit is to be taken up again."""

    code = "image-arrived"


class EngineLostError(RetriableError):
    """The process that worked on a visit ended, took too long or too much memory."""

    code = "engine-lost"


class DrainedError(RetriableError):
    """The worker is being stopped; another one goes on where this one was."""

    code = "drained"


class PermanentError(PromptError):
    """The same work would fail in the same way."""

    code = "permanent"


class EventError(PermanentError):
    """A visit event is not valid."""

    code = "bad-event"


class RefusedMessageError(PermanentError):
    """Who is to get a message will never take it."""

    code = "refused-message"


class RawError(PermanentError):
    """A raw file cannot be used; the message names the file and the reason."""

    code = "bad-raw"


class HeaderError(RawError):
    """A header card that is needed is missing or has a value that makes no sense."""

    code = "bad-header"


class WrongCameraError(RawError):
    """A raw was taken by another instrument than its place says."""

    code = "wrong-instrument"


class PlanMismatchError(RawError):
    """A raw is not what the visit event announced; the message gives both values and the limit."""

    code = "plan-mismatch"


class MissingInputError(PermanentError):
    """An input that the pipeline needs is not in the repository."""

    code = "no-input"


class NoCalibError(MissingInputError):
    """No certified calib is valid at the observation's time."""

    code = "no-calibs"


class NoRefcatError(MissingInputError):
    """The reference catalogue has no sources in the field."""

    code = "no-refcat"


class NoTemplateError(MissingInputError):
    """No template covers the field."""

    code = "no-template"


class ScienceError(PermanentError):
    """A measurement failed on the pixels that were given."""

    code = "science"


class AstrometryError(ScienceError):
    """No astrometric solution was found."""

    code = "astrometry"


class PhotometryError(ScienceError):
    """No photometric zero point was found."""

    code = "photometry"


class PsfError(ScienceError):
    """No point spread function could be measured."""

    code = "psf"


class SubtractionError(ScienceError):
    """The template could not be matched to the science image."""

    code = "subtraction"


class RepositoryError(PermanentError):
    """A repository is missing something, or holds something that it should not."""

    code = "bad-repository"


class ConfigError(PermanentError):
    """A setting is missing or wrong."""

    code = "bad-config"


class ConflictError(PermanentError):
    """Another thing already stands under the same identifier."""

    code = "conflict"


class GivenUpError(PermanentError):
    """No attempt brings the visit to an end: each loses its engine, or an operator says so."""

    code = "given-up"


class OperationError(PermanentError):
    """What an operator asks for cannot be done with this visit."""

    code = "not-possible"


class InternalError(PermanentError):
    """A fault of this system that it did not expect; the log has the traceback."""

    code = "internal"
