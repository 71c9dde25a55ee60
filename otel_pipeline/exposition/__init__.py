"""Metrics about the telemetry that passes, as Prometheus shows them: derived ones in `families.py`, received ones in
`received.py`.
"""
