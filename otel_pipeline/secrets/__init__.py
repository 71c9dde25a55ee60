"""Finds and removes secrets: rules, the search over raw bytes, and the rewriter of OTLP requests. No I/O, no log."""
