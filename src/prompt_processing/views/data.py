"""Results as plain data, for JSON."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """Return a value made of dictionaries, lists, texts, numbers and None only.

    Dataclasses become dictionaries; fields that are not part of their text form (pictures) are left out.
    Numbers that are not finite become None, because JSON has no word for them.

    Parameters
    ----------
    value
        Dataclasses, mappings, sequences, scalars of Python or NumPy; anything else becomes its text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value) if field.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    # Scalars of NumPy; commands that show none must not wait for its import.
    return plain(value.item()) if hasattr(value, "item") else str(value)
