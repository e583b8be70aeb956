"""Commands: thin wrappers that read arguments, call the rooms below and print."""

from prompt_processing.cli.app import main

__all__ = ["main"]
