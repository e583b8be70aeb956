"""Making and filling a repository."""
