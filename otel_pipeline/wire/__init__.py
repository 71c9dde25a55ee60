"""Bytes only: scan, columns, splice, value mapping. No I/O, no clock, no log."""
