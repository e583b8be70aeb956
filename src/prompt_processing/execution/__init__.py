"""Running a quantum graph in memory."""
