"""A program in a process of its own, with the hooks in it as `opentelemetry-instrument` would put them, and its spans.

The hooks come in through a `sitecustomize`, so they are there before the program and in each child process of it. Every
finished span is a line of spans.jsonl in the program's folder.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
TIMEOUT_S: Final = 60.0
_SPANS: Final = "spans.jsonl"
_HOOKS: Final = "from tests.support.worker_child import arm\narm()"


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
    def attempt(self) -> Any:
        return self.get("otel_pipeline.job.attempt")


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended, in the order in which its spans did."""

    returncode: int
    output: str
    errors: str
    spans: Sequence[Span] = field(default_factory=list)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Span:
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} {name!r} of {[span.name for span in self.spans]}\n{self.errors}"
        return found[0]

    def jobs(self) -> list[Span]:
        return [span for span in self.spans if span.outcome is not None]

    def roots(self) -> list[str]:
        """Names of the spans whose parent is not among the spans."""
        known = {span.span_id for span in self.spans}
        return [span.name for span in self.spans if span.parent_id not in known]

    def children(self, parent: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_id == parent.span_id]


def run(
    folder: Path,
    files: Mapping[str, str],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    official: Sequence[str] = (),
    armed: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> Finished:
    """Runs the first of the files to its end. `official`: instrumentors to put in first, as `module:Class`."""
    process = start(folder, files, *arguments, environment=environment, official=official, armed=armed)
    try:
        output, errors = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
        process.wait(10)
    return Finished(process.returncode, output, errors, read(folder))


def start(
    folder: Path,
    files: Mapping[str, str],
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    official: Sequence[str] = (),
    armed: bool = True,
) -> subprocess.Popen[str]:
    """Starts the first of the files in the folder, with the others beside it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
    hooks = folder / "hooks"
    hooks.mkdir(parents=True, exist_ok=True)
    (hooks / "sitecustomize.py").write_text(_HOOKS if armed else "", "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.Popen(
        (sys.executable, str(folder / next(iter(files))), *arguments),
        cwd=folder,
        env={
            **kept,
            "PYTHONPATH": os.pathsep.join(map(str, (hooks, ROOT, folder))),
            "CHILD_SPANS": str(folder / _SPANS),
            "CHILD_OFFICIAL": ",".join(official),
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read(folder: Path) -> list[Span]:
    """The spans that were finished so far."""
    file = folder / _SPANS
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    return [Span(**json.loads(line)) for line in lines]


# -- in the child ------------------------------------------------------------------------------------------------------


def arm() -> None:
    """Sets up an SDK, the official instrumentors asked for, and our adapters around them."""
    from opentelemetry import trace  # noqa: PLC0415  only the child needs it
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415

    from otel_pipeline.worker.activation import activate  # noqa: PLC0415
    from otel_pipeline.worker.spans import JobAttributes  # noqa: PLC0415

    if os.environ.get("OTEL_LOG"):
        logging.getLogger("otel_pipeline.worker").addHandler(logging.StreamHandler())
        logging.getLogger("otel_pipeline.worker").setLevel(logging.DEBUG)
    provider = TracerProvider()
    provider.add_span_processor(JobAttributes())  # type: ignore[arg-type]  # it has the shape
    provider.add_span_processor(SimpleSpanProcessor(_file_exporter()))
    trace.set_tracer_provider(provider)
    for name in filter(None, os.environ.get("CHILD_OFFICIAL", "").split(",")):
        module, _, kind = name.partition(":")
        getattr(importlib.import_module(module), kind)().instrument()
    activate()


def _file_exporter() -> Any:
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # noqa: PLC0415

    class ToFile(SpanExporter):
        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            text = "".join(json.dumps(_told(span)) + "\n" for span in spans)
            with Path(os.environ["CHILD_SPANS"]).open("a", encoding="utf-8") as file:
                file.write(text)
            return SpanExportResult.SUCCESS

    return ToFile()


def _told(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name.lower(),
        "trace_id": f"{span.context.trace_id:032x}",
        "span_id": f"{span.context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "error": span.status.status_code.name == "ERROR",
        "message": span.status.description or "",
        "attributes": dict(span.attributes),
    }
