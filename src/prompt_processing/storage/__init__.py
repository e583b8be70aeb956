"""Where things are kept: stored objects and databases."""
