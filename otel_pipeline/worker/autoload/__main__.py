"""Prints the folder to put on PYTHONPATH."""

from __future__ import annotations

from pathlib import Path

print(Path(__file__).resolve().parent)
