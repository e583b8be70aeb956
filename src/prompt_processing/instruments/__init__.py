"""Cameras: raw formats, header translators, formatters."""
