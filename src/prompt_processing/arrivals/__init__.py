"""Arrival of raws in the landing store."""
