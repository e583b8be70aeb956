"""The Alert Production Database: one port, its SQL store and an in-memory twin."""
