"""Prompt processing: from a telescope's next-visit event to alerts within a minute."""
