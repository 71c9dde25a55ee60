"""A worker in a process of its own: a script that imports nothing of ours, started as `opentelemetry-instrument` does.

`run` writes the files into a folder and runs the first of them, with a `sitecustomize` that sets an SDK provider and
arms the adapters. Each span is written as it ends, so that a process that vanishes loses nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
SPANS: Final = "TEST_SPANS_FILE"
OFFICIAL: Final = "TEST_OFFICIAL"
"""Official instrumentations to put in first, as module:Class."""


@dataclass(frozen=True, slots=True)
class Span:
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    error: bool
    message: str
    attributes: Mapping[str, Any]

    def get(self, name: str) -> Any:
        return self.attributes.get(name)

    @property
    def outcome(self) -> Any:
        return self.get("otel_pipeline.job.outcome")

    @property
    def source(self) -> Any:
        return self.get("otel_pipeline.job.outcome_source")

    @property
    def job_id(self) -> Any:
        return self.get("otel_pipeline.job.id")


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of it."""

    returncode: int
    output: str
    errors: str
    spans: Sequence[Span]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans {name!r} among {[span.name for span in self.spans]}\n{self.errors}"
        return found[0]

    def jobs(self) -> list[Span]:
        return [span for span in self.spans if span.outcome is not None]

    def traces(self) -> set[str]:
        return {span.trace_id for span in self.spans}

    def roots(self) -> list[str]:
        """Names of spans without a parent among the others."""
        known = {span.span_id for span in self.spans}
        return [span.name for span in self.spans if span.parent_id not in known]


def run(
    folder: Path,
    files: Mapping[str, str],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    official: Sequence[str] = (),
    armed: bool = True,
    timeout_s: float = 60.0,
) -> Finished:
    """Runs the first of the files; `armed` False: the same without us. Text is dedented."""
    script = start(folder, files, *arguments, environment=environment, official=official, armed=armed)
    try:
        output, errors = script.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        output, errors = kill(script)
        raise AssertionError(f"the worker did not end in {timeout_s} s\n{output}\n{errors}") from None
    return Finished(script.returncode, output, errors, read(folder))


def start(
    folder: Path,
    files: Mapping[str, str],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    official: Sequence[str] = (),
    armed: bool = True,
) -> subprocess.Popen[str]:
    """Starts the first of the files; the caller ends it, and reads its spans with `read`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(f"from {__name__} import arm\narm()\n" if armed else "", "utf-8")
    (folder / "spans.jsonl").unlink(missing_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "RUNPOD_", "COV_"))}
    return subprocess.Popen(
        [sys.executable, str(folder / next(iter(files))), *arguments],
        cwd=folder,
        env={
            **kept,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join((str(hooks), str(ROOT), str(folder))),
            SPANS: str(folder / "spans.jsonl"),
            OFFICIAL: ",".join(official),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(script: subprocess.Popen[str]) -> tuple[str, str]:
    """Ends a script and whatever it started; what it had printed."""
    with suppress(ProcessLookupError):
        os.killpg(script.pid, signal.SIGKILL)
    return script.communicate(timeout=20)


def read(folder: Path) -> list[Span]:
    """The spans that ended so far, in that order."""
    file = folder / "spans.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [Span(**json.loads(line)) for line in lines]


class _Writer:
    """A span processor that writes each span as it ends."""

    def __init__(self, file: str) -> None:
        self._file, self._lock = file, threading.Lock()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        pass

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:
        made = {
            "name": span.name,
            "kind": span.kind.name.lower(),
            "trace_id": f"{span.context.trace_id:032x}",
            "span_id": f"{span.context.span_id:016x}",
            "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
            "start_ns": span.start_time,
            "end_ns": span.end_time,
            "error": span.status.status_code.name == "ERROR",
            "message": span.status.description or "",
            "attributes": dict(span.attributes or {}),
        }
        with self._lock, Path(self._file).open("a", encoding="utf-8") as file:
            file.write(json.dumps(made) + "\n")

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  the SDK's signature
        return True


def arm() -> None:
    """In the child, before its script: as `opentelemetry-instrument` does, but spans go to the file."""
    from opentelemetry import trace  # noqa: PLC0415  only the child needs it
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    from otel_pipeline.worker.activation import activate  # noqa: PLC0415
    from otel_pipeline.worker.spans import JobAttributes  # noqa: PLC0415

    provider = TracerProvider()
    provider.add_span_processor(JobAttributes())  # type: ignore[arg-type]  # it has the shape
    provider.add_span_processor(_Writer(os.environ[SPANS]))  # type: ignore[arg-type]  # it has the shape
    trace.set_tracer_provider(provider)
    for each in filter(None, os.environ[OFFICIAL].split(",")):
        module, _, name = each.partition(":")
        getattr(import_module(module), name)().instrument()
    activate()
