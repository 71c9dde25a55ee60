"""Conditions over the columns of a batch: a small, safe subset of OTTL. `parser.py` first."""
