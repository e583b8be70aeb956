"""The process that engines are forked from. Light to import, so that it can be started before all else."""

import multiprocessing
from multiprocessing import forkserver
from typing import Final

CONTEXT: Final = multiprocessing.get_context("forkserver")


def preload(module: str) -> None:
    """Let engines be forked from a process that has imported a module; to be said before the first one."""
    CONTEXT.set_forkserver_preload([module])


def start(module: str) -> None:
    """Let that process import a module while the caller goes on."""
    preload(module)
    forkserver.ensure_running()
