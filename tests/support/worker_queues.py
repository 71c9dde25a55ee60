"""Programs of queue frameworks in processes of their own, and the spans that they and their children leave in a file.

A program imports nothing of ours. `sitecustomize` sets up, in it and in every Python process that it starts, what
`opentelemetry-instrument` would: an SDK, official instrumentations, the adapters.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FILE: Final = "TEST_SPANS_FILE"
OFFICIAL: Final = "TEST_OFFICIAL"
BATCHED: Final = "TEST_BATCHED"
FAULTS: Final = "TEST_FAULTS"
"""What the names of hooks begin with that fail at each call."""
REDIS: Final = "opentelemetry.instrumentation.redis:RedisInstrumentor"
CELERY: Final = "opentelemetry.instrumentation.celery:CeleryInstrumentor"
WAIT_S_MAX: Final = 40.0


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
    pid: int

    def get(self, name: str) -> Any:
        return self.attributes.get(name)

    def job(self, name: str) -> Any:
        return self.attributes.get(f"otel_pipeline.job.{name}")

    @property
    def verdict(self) -> tuple[Any, Any, Any]:
        return self.job("outcome"), self.job("outcome_source"), self.get("error.type")


@dataclass(frozen=True, slots=True)
class Seen:
    """All spans of a program."""

    spans: Sequence[Span]
    text: str = ""

    def trace_of(self, root: str) -> Trace:
        """The trace whose root has this name."""
        found = [span for span in self.spans if span.name == root and not span.parent_id]
        assert len(found) == 1, f"{len(found)} roots {root!r}\n{self.outline()}\n{self.text}"
        return Trace([span for span in self.spans if span.trace_id == found[0].trace_id], self)

    def roots(self) -> list[str]:
        """Names of spans without a parent among the others, sorted."""
        known = {span.span_id for span in self.spans}
        return sorted(span.name for span in self.spans if span.parent_id not in known)

    def outline(self) -> str:
        return "\n\n".join(
            Trace([span for span in self.spans if span.trace_id == trace_id], self).outline()
            for trace_id in dict.fromkeys(span.trace_id for span in self.spans)
        )


@dataclass(frozen=True, slots=True)
class Trace:
    spans: Sequence[Span]
    seen: Seen

    @property
    def jobs(self) -> list[Span]:
        """Each attempt, in order."""
        found = [span for span in self.spans if span.job("outcome")]
        return sorted(found, key=lambda span: (span.job("attempt"), span.start_ns))

    @property
    def job(self) -> Span:
        assert len(self.jobs) == 1, f"{self.outline()}\n{self.seen.text}"
        return self.jobs[0]

    def path(self, span: Span) -> list[str]:
        """Names from the root to the span."""
        by_id = {each.span_id: each for each in self.spans}
        names = [span.name]
        while span.parent_id in by_id:
            span = by_id[span.parent_id]
            names.insert(0, span.name)
        return names

    def paths(self) -> list[str]:
        return sorted(" > ".join(self.path(span)) for span in self.spans)

    def outline(self) -> str:
        return "\n".join(
            f"{' > '.join(self.path(span))} [{span.kind}] {dict(span.attributes)}"
            for span in sorted(self.spans, key=lambda span: span.start_ns)
        )


class Program:
    """A program that was started. `stop` ends it, or the block."""

    def __init__(self, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.output = (folder / f"{len(list(folder.glob('output*')))}.output").open("w+")
        self.process = subprocess.Popen(
            list(command), cwd=folder, env=dict(environment), stdout=self.output, stderr=subprocess.STDOUT, text=True
        )

    def text(self) -> str:
        return Path(self.output.name).read_text("utf-8", "replace")

    def wait(self, timeout_s: float = WAIT_S_MAX) -> Seen:
        """Until it ends by itself."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"it did not end\n{self.text()}") from None
        assert code == 0, self.text()
        return self.seen()

    def until(self, done: Callable[[Seen], bool], what: str) -> Seen:
        """Until the spans are as they should be."""
        deadline_s = time.monotonic() + WAIT_S_MAX
        while not done(seen := self.seen()):
            if time.monotonic() > deadline_s:
                raise AssertionError(f"not seen in time: {what}\n{seen.outline()}\n{self.text()}")
            time.sleep(0.05)
        return seen

    def seen(self) -> Seen:
        file = self.folder / "spans.jsonl"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        return Seen([Span(**json.loads(line)) for line in lines], self.text())

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.output.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def program(
    folder: Path,
    files: Mapping[str, str],
    *command: str,
    redis_url: str = "",
    official: Sequence[str] = (REDIS,),
    path: Sequence[str] = (),
    batched: bool = False,
    armed: bool = True,
    **environment: str,
) -> Program:
    """Starts the first of the files, or the command. `batched`: a span leaves the process at a flush only."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(textwrap.dedent(text), "utf-8")
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(f"from {__name__} import arm\narm()\n" if armed else "", "utf-8")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "COV_"))}
    variables = {
        **kept,
        "PYTHONPATH": os.pathsep.join((str(hooks), *path, str(ROOT), str(folder))),
        "PYTHONUNBUFFERED": "1",
        "REDIS_URL": redis_url,
        FILE: str(folder / "spans.jsonl"),
        OFFICIAL: ",".join(official),
        BATCHED: "1" if batched else "",
        **environment,
    }
    return Program(folder, command or (sys.executable, str(folder / next(iter(files)))), variables)


def tool(name: str) -> str:
    """A command that is installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


class _Exporter:
    """Appends each span to the file at once, by one write, so that processes do not mix their lines."""

    def __init__(self, file: str) -> None:
        self._file, self._lock = file, threading.Lock()

    def export(self, spans: Sequence[Any]) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415  in the child only

        text = "".join(json.dumps(_plain(span)) + "\n" for span in spans)
        with self._lock, Path(self._file).open("a", encoding="utf-8") as file:
            file.write(text)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  the SDK's signature
        return True


def _plain(span: Any) -> dict[str, Any]:
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
        "attributes": dict(span.attributes or {}),
        "pid": os.getpid(),
    }


def arm() -> None:
    """In each process, before its program."""
    from opentelemetry import trace  # noqa: PLC0415  only the child needs it
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor  # noqa: PLC0415

    from otel_pipeline.worker import guard  # noqa: PLC0415
    from otel_pipeline.worker.activation import activate  # noqa: PLC0415
    from otel_pipeline.worker.spans import JobAttributes  # noqa: PLC0415

    exporter: Any = _Exporter(os.environ[FILE])
    provider = TracerProvider()
    provider.add_span_processor(JobAttributes())  # type: ignore[arg-type]  # it has the shape
    provider.add_span_processor(
        BatchSpanProcessor(exporter, schedule_delay_millis=600_000)
        if os.environ[BATCHED]
        else SimpleSpanProcessor(exporter)
    )
    trace.set_tracer_provider(provider)
    _break_hooks(guard, tuple(filter(None, os.environ.get(FAULTS, "").split(","))))
    for each in filter(None, os.environ[OFFICIAL].split(",")):
        module, _, name = each.partition(":")
        getattr(import_module(module), name)().instrument()
    activate()


def _break_hooks(guard: Any, beginnings: tuple[str, ...]) -> None:
    """Those that exist and those that are made when their libraries are imported."""
    made = guard.Hook.__init__

    def broken(hook: Any, name: str, function: Any) -> None:
        made(hook, name, function)
        if beginnings and name.startswith(beginnings):
            hook.fault = RuntimeError("a fault of ours")

    guard.Hook.__init__ = broken
    for name, hook in guard.HOOKS.items():
        if beginnings and name.startswith(beginnings):
            hook.fault = RuntimeError("a fault of ours")
