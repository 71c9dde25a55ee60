"""A program under `opentelemetry-instrument`, as an operator would start it, that ends in all the ways programs do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
INSTRUMENT: Final = str(Path(sys.executable).parent / "opentelemetry-instrument")
HEAD: Final = """
import logging, multiprocessing, os, signal, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
from opentelemetry import trace
from otel_pipeline.worker.process import lifecycle
from otel_pipeline.worker.jobs import Origin, job_end, job_start
from otel_pipeline.worker.flow import popped
tracer = trace.get_tracer("program")
def begin(name="q"):
    job = job_start(Origin("redis", name), b'{"job_id": "j-1", "user_id": "ada"}')
    popped(job)
    return job
def ready():
    print("ready", flush=True)
"""
"""What a program does through the adapters, without them: a job that was popped."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ran to its end."""

    returncode: int
    output: str
    errors: str
    exit_s: float
    """Since the time that it printed last, if it did."""


def start(folder: Path, body: str, endpoint: str, **more: str) -> subprocess.Popen[str]:
    """Starts a program that exports to the endpoint, over HTTP and only when it is asked to."""
    script = folder / "program.py"
    script.write_text(HEAD + textwrap.dedent(body), "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ours = {
        "PYTHONPATH": str(ROOT),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": "worker",
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
        "OTEL_BLRP_SCHEDULE_DELAY": "60000",
        # Adapters of libraries are tested elsewhere; here they would only make the start slow.
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis,httpx,fastapi,celery,asgi",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.Popen(
        (INSTRUMENT, sys.executable, str(script)),
        cwd=folder,
        env={**kept, **ours, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 60.0) -> Ended:
    """Waits for the end; the last word of output may be the time at which the program was done."""
    try:
        output, errors = process.communicate(timeout=timeout_s)
        ended_s = time.time()
    finally:
        process.kill()
        process.wait(10)
    last = output.split()[-1] if output.split() else ""
    return Ended(process.returncode, output, errors, ended_s - float(last) if last.count(".") == 1 else 0.0)


def run(folder: Path, body: str, endpoint: str, **more: str) -> Ended:
    """Runs it to its end."""
    return finish(start(folder, body, endpoint, **more))


def told(process: subprocess.Popen[str], word: str = "ready") -> None:
    """Waits for a line of output."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.strip() == word, line + (process.stderr.read() if process.stderr else "")
