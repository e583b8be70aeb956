"""Messages that announce visits, and hints that images came: ports and their adapters."""
