"""What is written beside a message, for those who do not read it."""

from prompt_processing.domain.errors import EventError
from prompt_processing.domain.visit import CancelVisit, DetectorVisit, WarmUp, parse_message


def attributes(body: str) -> dict[str, str]:
    """Return the attributes of a message, by which subscriptions filter and operators search.

    Whoever receives it relies on the body alone. A body that cannot be read has none.
    """
    try:
        message = parse_message(body)
    except EventError:
        return {}
    found = {
        "kind": message.kind,
        "schema_version": str(message.schema_version),
        "instrument": message.instrument,
    }
    match message:
        case DetectorVisit():
            found |= {"group": message.groupId, "detector": str(message.detector), "survey": message.survey}
            found["dedup_key"] = f"{message.instrument}:{message.groupId}:{message.detector}"
        case CancelVisit():
            found["group"] = message.groupId
        case WarmUp():
            pass
    return {name: value for name, value in found.items() if value}
