"""Parts of an image worked on side by side."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

THREADS: Final = 2
"""More gain little: most of a visit's steps run on one core, and other detectors want the others."""


def for_each[Part](function: Callable[[Part], None], parts: Iterable[Part]) -> None:
    """Call a function for each part, a few at a time; the first error is raised.

    The result must not depend on the order: each call writes to pixels of its own. The function should spend
    its time in code that lets other threads run (numpy, scipy.fft, numba with ``nogil``).

    Parameters
    ----------
    function
        Called with each part.
    parts
        Parts of the work.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(function, parts):
            pass
