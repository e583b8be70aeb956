"""Results as plain data, for JSON."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


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
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
