"""Signals that ask a process to stop."""

import signal
import threading


def stop_on_signals() -> threading.Event:
    """Return what is set by SIGTERM or Ctrl-C, instead of ending the process at once.

    For the main thread only.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
