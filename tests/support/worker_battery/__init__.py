"""Programs in small, to be run with and without us: run.py."""
