# ruff: noqa: PLC0415
# What is imported depends on the mode: plain means without any of it.
"""One process of the worker benchmark: does what workers do, counts its own CPU time, prints one line of JSON.

    python -m tests.benchmarks.worker_load MODE '{"redis": URL, "comfyui": URL, "scale": 1.0}'

MODE is `plain` (no telemetry), `official` (the official instrumentations and the SDK) or `ours` (those and this
package). Spans and log records are batched and encoded as the OTLP exporter does, then thrown away: what a network
costs is not ours. CPU time is that of the whole process, so the batch threads are in it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
import redis
import websocket

TASK: Final = {"job_id": "", "user_id": "user-1", "tier": "pro", "workflow": "portrait", "model": "sdxl", "seed": 1}
GRAPH: Final = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 77}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "bench"}},
}
POLLS: Final = 5
"""GET /history of a job before its prompt is over."""


class Load:
    """The things that are measured; each method does one kind of thing `count` times."""

    def __init__(self, redis_url: str, comfyui_url: str) -> None:
        self.redis = redis.Redis.from_url(redis_url)
        self.http = httpx.Client()
        self.url = comfyui_url
        self.log = logging.getLogger("bench")
        self.log.setLevel(logging.INFO)
        self.log.propagate = True

    def push(self, count: int) -> None:
        for number in range(count):
            self.redis.rpush("bench:queue", json.dumps({**TASK, "job_id": f"job-{number}"}))

    def pop(self, count: int) -> None:
        for _ in range(count):
            self.begin()
        self.end()

    def begin(self) -> None:
        """What follows is done in a job, until `end`."""
        assert self.redis.blpop(["bench:queue"], timeout=1)

    def end(self) -> None:
        """The pop that finds nothing, which ends the last job."""
        assert self.redis.lpop("bench:queue") is None

    def poll(self, count: int) -> None:
        for _ in range(count):
            self.redis.lpop("bench:empty")

    def status(self, count: int) -> None:
        for number in range(count):
            self.redis.hset("bench:status", mapping={"stage": number})

    def records(self, count: int) -> None:
        for number in range(count):
            self.log.info("step %d of a job", number)

    def prompt(self, count: int) -> None:
        """POST /prompt, `POLLS` times GET /history, GET /view: the prompt comes from the cache at once."""
        for _ in range(count):
            body = {"prompt": GRAPH, "client_id": "bench"}
            prompt_id = self.http.post(f"{self.url}/prompt", json=body).json()["prompt_id"]
            entry: Any = {}
            polls = 0
            while prompt_id not in entry or polls < POLLS:
                entry, polls = self.http.get(f"{self.url}/history/{prompt_id}").json(), polls + 1
            [image] = entry[prompt_id]["outputs"]["9"]["images"]
            assert self.http.get(f"{self.url}/view", params=image).content

    def messages(self, count: int) -> None:
        """WebSocket messages about nodes of a prompt that nobody here sent: what each one costs to look at."""
        socket = websocket.create_connection(self.url.replace("http", "ws") + f"/flood?count={count}")
        for _ in range(count):
            json.loads(socket.recv())
        socket.close()

    def job(self) -> None:
        """One whole job, as it is counted in spans: pop, statuses, prompt, log."""
        job = json.loads(self.redis.blpop(["bench:queue"], timeout=1)[1])
        key = f"bench:status:{job['job_id']}"
        self.redis.hset(key, mapping={"status": "processing", "stage": "image"})
        self.log.info("job %s", job["job_id"])
        self.prompt(1)
        self.redis.hset(key, mapping={"status": "completed"})
        self.redis.expire(key, 60)


class Server:
    """A ComfyUI in the shape that the hooks look for, whose nodes do nothing: what is left is the hook."""

    def __init__(self) -> None:
        self.module = types.ModuleType("execution")
        exec(SERVER, self.module.__dict__)  # noqa: S102  its own text

    def run(self, count: int) -> None:
        asyncio.run(self.module.PromptExecutor().execute_async({}, "prompt-1", {}, count))


SERVER: Final = """
import enum

class ExecutionResult(enum.Enum):
    SUCCESS = 0
    FAILURE = 1
    PENDING = 2

class PromptQueue:
    def put(self, item):
        pass

class DynamicPrompt:
    def get_node(self, node_id):
        return {"class_type": "EmptyImage", "inputs": {}}
    def get_display_node_id(self, node_id):
        return node_id
    def get_parent_node_id(self, node_id):
        return None
    def get_real_node_id(self, node_id):
        return node_id

async def execute(server, dynprompt, caches, current_item, extra_data, executed, prompt_id, execution_list,
                  pending_subgraph_results, pending_async_nodes, ui_outputs):
    executed.add(current_item)
    return (ExecutionResult.SUCCESS, None, None)

class PromptExecutor:
    success = True
    def add_message(self, event, data, broadcast):
        pass
    def execute(self, prompt, prompt_id, extra_data={}, execute_outputs=[]):
        pass
    async def execute_async(self, prompt, prompt_id, extra_data={}, execute_outputs=[]):
        dynprompt, executed = DynamicPrompt(), set()
        for number in range(execute_outputs):
            await execute(None, dynprompt, None, str(number), extra_data, executed, prompt_id, None, {}, {}, {})
"""


class Counting:
    """Exporters that encode, count and forget."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()
        self.traces: set[int] = set()

    def export(self, batch: Sequence[Any]) -> Any:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.trace.export import SpanExportResult

        encode_spans(batch).SerializeToString()
        for span in batch:
            self.names[span.name] += 1
            self.traces.add(span.context.trace_id)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002  the SDK's signature
        return True


class CountingLogs:
    def export(self, batch: Sequence[Any]) -> Any:
        from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        encode_logs(batch).SerializeToString()
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002  the SDK's signature
        return True


def instrument(mode: str) -> Counting:
    """What `opentelemetry-instrument` would do, with exporters that send nothing."""
    counting = Counting()
    if mode == "plain":
        return counting
    from opentelemetry import _logs, trace
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
    from opentelemetry.instrumentation.logging import LoggingInstrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider, logs = TracerProvider(), LoggerProvider()
    provider.add_span_processor(BatchSpanProcessor(counting, max_queue_size=100_000))  # type: ignore[arg-type]
    logs.add_log_record_processor(BatchLogRecordProcessor(CountingLogs()))  # type: ignore[arg-type]
    trace.set_tracer_provider(provider)
    _logs.set_logger_provider(logs)
    if mode == "ours":
        from otel_pipeline.worker import entry

        entry.pre_instrument()
    for instrumentor in (RedisInstrumentor, HTTPXClientInstrumentor, LoggingInstrumentor):
        instrumentor().instrument()
    if mode == "ours":
        entry.post_instrument()
    return counting


def flush() -> None:
    from opentelemetry import trace

    getattr(trace.get_tracer_provider(), "force_flush", lambda: None)()


def cpu_us(work: Callable[[int], None], count: int) -> float:
    """CPU time of one, in microseconds, with what the exporters do about it."""
    gc.collect()
    before_ns = time.process_time_ns()
    work(count)
    flush()
    return (time.process_time_ns() - before_ns) / 1000 / count


def main() -> None:
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    counting = instrument(mode)
    load, server = Load(options["redis"], options["comfyui"]), Server()
    if mode == "ours":
        from otel_pipeline.worker.comfyui.server import patch_execution

        patch_execution(server.module)

    def count(wanted: int) -> int:
        return max(10, int(wanted * options["scale"]))

    load.redis.flushdb()
    load.prompt(2)  # fills the cache of the stand-in and the connection pools
    load.push(20)
    load.pop(20)
    found = {
        "push": cpu_us(load.push, count(1000)),
        "pop": cpu_us(load.pop, count(1000)),
        "empty poll": cpu_us(load.poll, count(1000)),
        "node on the server": cpu_us(server.run, count(2000)),
    }
    load.push(1)
    load.begin()
    found |= {
        "status write": cpu_us(load.status, count(1000)),
        "ComfyUI prompt": cpu_us(load.prompt, count(60)),
        "WebSocket message": cpu_us(load.messages, count(3000)),
        "log record": cpu_us(load.records, count(2000)),
    }
    load.end()
    load.push(4)
    flush()
    counting.names.clear()
    counting.traces.clear()
    for _ in range(4):
        load.job()
    load.end()
    flush()
    jobs = {"spans": sum(counting.names.values()) / 4, "traces": len(counting.traces) / 4}
    print(json.dumps({"cpu_us": found, "jobs": jobs, "names": counting.names}), flush=True)


if __name__ == "__main__":
    main()
