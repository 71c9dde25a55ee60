"""RunPod serverless workers, with the real SDK against a server that hands out jobs as the platform does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.net import free_endpoint
from tests.support.worker_runpod import variables
from tests.support.worker_script import ROOT, Finished, kill, read, run, start

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
JOBS: list[dict[str, Any]] = [
    {"id": "job-good", "input": {"prompt": "a cat", "user_id": "u1"}},
    {"id": "job-raises", "input": {"how": "raise"}},
    {"id": "job-error", "input": {"how": "error"}},
    {"id": "job-status", "input": {"how": "status"}},
    {"id": "job-child", "input": {"traceparent": PARENT}},
]
BODY = """
    def react(job):
        how = job["input"].get("how")
        with tracer.start_as_current_span("render"):
            pass
        if how == "raise":
            raise RuntimeError("CUDA out of memory")
        if how == "error":
            return {"error": "bad workflow", "refresh_worker": True}
        if how == "status":
            return {"success": False, "message": "no outputs"}
        return {"images": ["x.png"]}
"""
HEAD = "import inspect, runpod\nfrom opentelemetry import trace\ntracer = trace.get_tracer('program')\n"
HANDLERS = {
    "sync": "def handler(job):\n    return react(job)\n",
    "async": "async def handler(job):\n    return react(job)\n",
    "generator": "def handler(job):\n    yield {'progress': 1}\n    yield react(job)\n",
    "async generator": "async def handler(job):\n    yield {'progress': 1}\n    yield react(job)\n",
    "lambda": "async def real(job):\n    return react(job)\nhandler = lambda job: real(job)\n",
}
TAIL = "\nrunpod.serverless.start({'handler': handler, 'concurrency_modifier': lambda now: 2})\n"


def program(kind: str) -> str:
    body = "\n".join(line[4:] for line in BODY.splitlines())
    return HEAD + body + "\n" + HANDLERS[kind] + TAIL


CLIENTS = """
    # As the official instrumentations of aiohttp and requests do.
    import aiohttp, requests, wrapt
    from opentelemetry import trace
    from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled

    tracer = trace.get_tracer("clients")

    async def asynchronous(wrapped, instance, args, kwargs):
        if not is_http_instrumentation_enabled():
            return await wrapped(*args, **kwargs)
        with tracer.start_as_current_span("HTTP"):
            return await wrapped(*args, **kwargs)

    def synchronous(wrapped, instance, args, kwargs):
        if not is_http_instrumentation_enabled():
            return wrapped(*args, **kwargs)
        with tracer.start_as_current_span("HTTP"):
            return wrapped(*args, **kwargs)

    class Instrumentor:
        def instrument(self):
            wrapt.wrap_function_wrapper(aiohttp.ClientSession, "_request", asynchronous)
            wrapt.wrap_function_wrapper(requests.Session, "send", synchronous)
"""


class Platform:
    """RunPod's side, in a process of its own."""

    def __init__(self, folder: Path, jobs: list[dict[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jobs.json").write_text(json.dumps(jobs), "utf-8")
        self._address = free_endpoint()
        self.port = int(self._address.rpartition(":")[2])
        module = "tests.support.worker_runpod"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--port", str(self.port), str(folder / "jobs.json")], cwd=ROOT
        )

    def results(self, count: int, timeout_s: float = 30.0) -> Mapping[str, Any]:
        """What was delivered, once it is so many."""
        deadline = time.monotonic() + timeout_s
        found: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self._address}/results", timeout=5) as answer:
                    found = json.load(answer)
            except OSError:
                pass  # not up yet
            if len(found) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError(f"only {found} after {timeout_s} s")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def serve(folder: Path, kind: str, *, armed: bool = True) -> tuple[Finished, Mapping[str, Any]]:
    """Runs a worker until the platform has all results."""
    platform = Platform(folder, JOBS)
    worker = start(
        folder,
        {"worker.py": program(kind), "clients.py": CLIENTS},
        environment=variables(platform.port),
        official=["clients:Instrumentor"],
        armed=armed,
    )
    try:
        results = platform.results(len(JOBS))
    finally:
        output, errors = kill(worker)
        platform.stop()
    return Finished(worker.returncode, output, errors, read(folder)), results


@pytest.mark.parametrize("kind", HANDLERS)
def test_each_job_is_one_trace_with_its_outcome(tmp_path: Path, kind: str) -> None:
    done, results = serve(tmp_path, kind)
    jobs = {span.get("otel_pipeline.job.id"): span for span in done.jobs()}
    assert {name: (span.outcome, span.source) for name, span in jobs.items()} == {
        "job-good": ("completed", "end"),
        "job-raises": ("failed", "exception"),
        "job-error": ("failed", "framework"),
        "job-status": ("failed", "return"),
        "job-child": ("completed", "end"),
    }
    assert len(done.spans) == 2 * len(JOBS)
    assert {span.parent_id for span in done.named("render")} == {span.span_id for span in jobs.values()}
    assert jobs["job-child"].trace_id == PARENT[3:35]
    assert jobs["job-error"].message == "bad workflow"
    assert all("error" in results[name] for name in ("job-raises", "job-error"))
    assert "error" not in results["job-good"]


def test_the_platform_gets_the_same_results_as_without_us(tmp_path: Path) -> None:
    _, with_us = serve(tmp_path / "with", "sync")
    _, without = serve(tmp_path / "without", "sync", armed=False)
    assert {name: _stable(result) for name, result in with_us.items()} == {
        name: _stable(result) for name, result in without.items()
    }


def _stable(result: dict[str, Any]) -> object:
    """Without the traceback, which names our wrapper's file."""
    try:
        error = json.loads(result.get("error", ""))
    except ValueError:
        return result
    return {name: error[name] for name in ("error_type", "error_message")}


def test_the_local_test_mode_is_a_job_too(tmp_path: Path) -> None:
    done = run(tmp_path, {"worker.py": program("async")}, "--test_input", '{"input": {"how": "error"}, "id": "mine"}')
    job = done.one("process handler")
    assert (done.returncode, job.get("otel_pipeline.job.id"), job.outcome) == (1, "mine", "failed")


def test_a_handler_object_keeps_working(tmp_path: Path) -> None:
    script = HEAD + (
        "class Handler:\n"
        "    async def __call__(self, job):\n"
        "        return {'kind': inspect.iscoroutinefunction(self.__call__)}\n"
        "config = {'handler': Handler()}\n"
        "try:\n"
        "    runpod.serverless.start(config)\n"
        "finally:\n"
        "    assert isinstance(config['handler'], Handler)\n"
    )
    done = run(tmp_path, {"worker.py": script}, "--test_input", '{"input": {"a": 1}}')
    assert (done.returncode, done.one("process Handler").outcome) == (0, "completed"), done.errors


def test_a_fault_of_ours_does_not_reach_the_handler(tmp_path: Path) -> None:
    script = "from otel_pipeline.worker.guard import HOOKS\n" + program("async").replace(
        "runpod.serverless.start(",
        "for name, each in HOOKS.items():\n    if name.startswith('runpod.'): each.fault = RuntimeError('ours')\n"
        "runpod.serverless.start(",
    )
    done = run(tmp_path, {"worker.py": script}, "--test_input", '{"input": {"a": 1}}')
    assert (done.returncode, done.jobs()) == (0, []), done.errors
