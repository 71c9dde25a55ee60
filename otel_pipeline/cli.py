"""The entry of `otel-pipeline`. Its commands need packages that an install for workers does not have."""

from __future__ import annotations

import os
import sys
from typing import Final

GATEWAY_PACKAGES: Final = (
    "aiohttp",
    "click",
    "google",
    "grpc",
    "lmdb",
    "numpy",
    "opentelemetry.proto",
    "prometheus_client",
    "pydantic",
    "rich",
    "sqlalchemy",
    "yaml",
)
"""Import names of what the extra `gateway` installs."""


def main() -> None:
    """Runs the command line and exits: with 2 if the gateway is not installed."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts a thread a core for algebra that nobody does here
    try:
        from otel_pipeline.commands import command_line  # noqa: PLC0415  the worker's install lacks what it imports

        command_line(prog_name="otel-pipeline")
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not any(missing == package or missing.startswith(f"{package}.") for package in GATEWAY_PACKAGES):
            raise
        print(f"otel-pipeline: {missing} is missing; pip install 'otel-pipeline[gateway]'", file=sys.stderr)
        sys.exit(2)
