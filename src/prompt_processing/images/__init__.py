"""Numerics: arrays in, arrays out; no Butler, no I/O, no framework."""
