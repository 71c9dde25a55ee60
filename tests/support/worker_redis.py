"""A program under the worker side, in a process of its own, and the spans that it made.

The program is a script as people write them; before it runs, the child sets up an SDK, the official instrumentation of
Redis, and the adapters asked for, as `opentelemetry-instrument` would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0

_BOOT = """
import json, os, runpy, sys, types

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
from otel_pipeline.worker.spans import JobAttributes
provider.add_span_processor(JobAttributes())
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

script, target, wanted = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
if "official" in wanted:
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    RedisInstrumentor().instrument()
from otel_pipeline.worker import activation, guard
names = {adapter.name for adapter in activation.ADAPTERS} | {name for name, _ in activation.ALWAYS}
os.environ["OTEL_PIPELINE_ADAPTERS_DISABLED"] = ",".join(names - set(wanted))
if "none" not in wanted:
    activation.activate()
faults = os.environ.get("FAULTS", "")
def dump():
    spans = [
        {
            "name": span.name,
            "kind": span.kind.name,
            "trace_id": span.context.trace_id,
            "span_id": span.context.span_id,
            "parent_id": span.parent.span_id if span.parent else None,
            "attributes": dict(span.attributes),
            "status": span.status.status_code.name,
            "start_ns": span.start_time,
            "end_ns": span.end_time,
        }
        for span in exporter.get_finished_spans()
    ]
    failures = {name: each.failures for name, each in guard.HOOKS.items() if each.failures}
    with open(target, "w") as file:
        json.dump({"spans": spans, "failures": failures}, file)
if faults:
    import otel_pipeline.worker.adapters.redis
    for name, each in guard.HOOKS.items():
        if name == faults:
            each.fault = RuntimeError("a fault of ours")
sys.argv = [script]
sys.path[0] = os.path.dirname(script)
try:
    runpy.run_path(script, run_name="__main__")
finally:
    dump()
"""


@dataclass(frozen=True)
class Span:
    name: str
    kind: str
    trace_id: int
    span_id: int
    parent_id: int | None
    attributes: Mapping[str, Any]
    status: str
    start_ns: int
    end_ns: int

    @property
    def outcome(self) -> tuple[Any, Any]:
        return self.attributes.get("otel_pipeline.job.outcome"), self.attributes.get("otel_pipeline.job.outcome_source")

    @property
    def attempt(self) -> Any:
        return self.attributes.get("otel_pipeline.job.attempt")


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    spans: Sequence[Span]
    output: str
    failures: Mapping[str, int]
    """Of our hooks."""

    @property
    def jobs(self) -> list[Span]:
        found = [span for span in self.spans if span.name.startswith("process ")]
        return sorted(found, key=lambda span: span.start_ns)

    @property
    def sends(self) -> list[Span]:
        found = [span for span in self.spans if span.name.startswith("send ")]
        return sorted(found, key=lambda span: span.start_ns)

    @property
    def traces(self) -> set[int]:
        return {span.trace_id for span in self.spans}

    def below(self, top: Span) -> list[Span]:
        return [span for span in self.spans if span.parent_id == top.span_id]

    def outline(self) -> str:
        return "\n".join(
            f"{span.trace_id % 10**6:6} {span.span_id % 10**6:6} <- {(span.parent_id or 0) % 10**6:6} {span.kind:8} "
            f"{span.name} {span.outcome} attempt={span.attempt}"
            for span in sorted(self.spans, key=lambda span: span.start_ns)
        )


def run(
    folder: Path,
    script: str,
    *,
    adapters: Sequence[str] = ("tasks", "redis", "official"),
    environment: Mapping[str, str] | None = None,
    path: Sequence[Path] = (),
) -> Ran:
    """Runs the script to its end. `adapters` may name `official` (instrumentation of Redis), or be `none`."""
    program, boot, target = folder / "worker.py", folder / "boot.py", folder / "spans.json"
    program.write_text(textwrap.dedent(script), "utf-8")
    boot.write_text(_BOOT, "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        (sys.executable, str(boot), str(program), str(target), ",".join(adapters)),
        env={**kept, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"the program ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    seen = json.loads(target.read_text("utf-8"))
    return Ran([Span(**span) for span in seen["spans"]], done.stdout, seen["failures"])
