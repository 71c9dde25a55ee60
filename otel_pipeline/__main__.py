"""`python -m otel_pipeline` is `otel-pipeline`."""

from __future__ import annotations

from otel_pipeline.cli import main

if __name__ == "__main__":
    main()
