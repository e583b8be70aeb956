"""Datasets of the central Butler in memory: what several visits need is read once."""

from collections import OrderedDict
from typing import Any, Final
from uuid import UUID

import numpy as np
import pandas as pd
from astropy.table import Table
from lsst.daf.butler import Butler, DatasetRef
from sqlalchemy.exc import SQLAlchemyError

from prompt_processing.domain.errors import RepositoryError, StoreError
from prompt_processing.images.exposure import Exposure

_SMALL: Final = 1024
"""What an object counts whose size is not looked at [bytes]."""


class DatasetCache:
    """Reads datasets, and keeps those that were used last up to a number of bytes.

    A dataset never changes under its id, so there is nothing to be refreshed. What is returned is shared: it
    must not be changed, and arrays refuse to be.

    Parameters
    ----------
    butler
        Central Butler.
    limit
        Bytes that are kept. A larger dataset is read each time.
    """

    def __init__(self, butler: Butler, limit: int) -> None:
        self._butler = butler
        self._limit = limit
        self._kept: OrderedDict[UUID, tuple[Any, int]] = OrderedDict()
        self.size = 0
        """Bytes that are kept now."""

    def get(self, ref: DatasetRef) -> Any:
        """Return a dataset.

        Raises
        ------
        RepositoryError
            If the repository knows it, but has no file of it.
        StoreError
            If the repository does not answer.
        """
        if ref.id in self._kept:
            self._kept.move_to_end(ref.id)
            return self._kept[ref.id][0]
        obj = self._read(ref)
        protect(obj)
        self._keep(ref.id, obj, size_of(obj))
        return obj

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.size = 0

    def _read(self, ref: DatasetRef) -> Any:
        try:
            return self._butler.get(ref)
        except FileNotFoundError as error:
            raise RepositoryError(f"{ref}: its file has vanished from the central Butler") from error
        except (OSError, SQLAlchemyError) as error:
            raise StoreError(f"central Butler: {ref}: {error}") from error

    def _keep(self, key: UUID, obj: Any, size: int) -> None:
        if size > self._limit:
            return
        while self.size + size > self._limit:
            _, (_, freed) = self._kept.popitem(last=False)
            self.size -= freed
        self._kept[key] = (obj, size)
        self.size += size


def size_of(obj: Any) -> int:
    """Return the memory that a dataset takes [bytes]: its arrays and tables; the rest counts little."""
    match obj:
        case np.ndarray():
            return int(obj.nbytes)
        case Exposure():
            planes = obj.masked_image
            return int(planes.image.nbytes + planes.variance.nbytes + planes.mask.nbytes)
        case Table():
            return sum(int(obj[name].nbytes) for name in obj.colnames)
        case pd.DataFrame():
            return int(obj.memory_usage(deep=True).sum())
        case dict():
            return sum(size_of(value) for value in obj.values())
        case _:
            return _SMALL


def protect(obj: Any) -> None:
    """Make the arrays of a dataset read-only."""
    match obj:
        case np.ndarray():
            obj.flags.writeable = False
        case Exposure():
            for plane in (obj.masked_image.image, obj.masked_image.variance, obj.masked_image.mask):
                plane.flags.writeable = False
        case dict():
            for value in obj.values():
                protect(value)
