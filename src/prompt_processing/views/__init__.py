"""Read models: what commands and pages show of a repository."""
