"""A night as a folder, and playing it as a telescope would, at speed or in real time."""
