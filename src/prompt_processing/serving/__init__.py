"""HTTP services: the border that every request passes, and what each service does behind it."""
