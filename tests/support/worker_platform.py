"""Everything around a worker, real or played back: Redis, ComfyUI, a speech API, RunPod, the gateway, the producers.

The order of a play: the producers run and stop, what they left in Redis is looked at, then the workers run until
every job is done by the worker's own word, and end by SIGTERM. What the gateway wrote is read last.
"""

from __future__ import annotations

import base64
import json
import pickle
import re
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import redis

from tests.benchmarks.process import accepts_connections, free_ports
from tests.e2e.gateway import own_metrics
from tests.e2e.support import HOST, PEERS, Launcher, Server, environment, fetch, get, get_json, python, until
from tests.support import worker_runpod
from tests.support.worker_styles import FOLDER, Style
from tests.support.worker_traces import Record, Span, Trace, read_records, read_spans, traces

JOBS_S_MAX: Final = 60.0
CLOCKS: Final = re.compile(rb'"(created_at|updated_at)": [0-9.e+]+')
"""Times of day in payloads, which differ from run to run."""
OUR_KEYS: Final = b"otelp:"
PLAIN: Final = 1
"""The Redis database that the producers without us write to."""


@dataclass
class Platform:
    """The servers; `instrumented` is the environment of a program that is run with us."""

    launcher: Launcher
    redis_url: str
    lost_after: str = "60s"
    prompt_s_min: float = 0.15
    """How long a prompt takes that executes nodes."""

    def __post_init__(self) -> None:
        folder = self.launcher.folder
        self.otlp, self.health, self.telemetry, self.comfyui, self.tts, self.runpod = free_ports(6)
        config = folder / "gateway.yaml"
        config.write_text(json.dumps(self._gateway_config()))
        arguments = ("gateway", "--config", str(config), "--data-dir", str(folder / "outbox"))
        self.gateway = self.launcher.start("gateway", python("otel_pipeline", *arguments))
        least = ("--run-seconds-min", str(self.prompt_s_min))
        self._serve("comfyui", self.comfyui, python("otel_pipeline.demo.comfyui", "--port", str(self.comfyui), *least))
        quick = ("--delay-seconds", "0.02")
        self._serve("tts", self.tts, python("otel_pipeline.demo.tts", "--port", str(self.tts), *quick))
        self.gateway.wait_until(lambda: get(f"http://{HOST}:{self.health}/readyz")[0] == 200, "ready")

    def services(self, style: Style, database: int = 0) -> dict[str, str]:
        """What every program is told of its surroundings."""
        path = [str(style.folder)]
        if style.peer:
            path.append(str(PEERS.parent / "arq"))
        return {
            "REDIS_URL": self.redis_url.removesuffix("/0") + f"/{database}",
            "RQ_REDIS_URL": self.redis_url.removesuffix("/0") + f"/{database}",
            "COMFYUI_URL": f"http://{HOST}:{self.comfyui}",
            "COMFYUI_ADDRESS": f"{HOST}:{self.comfyui}",
            "TTS_URL": f"http://{HOST}:{self.tts}",
            "WORKFLOW_DIR": str(FOLDER / "workflows"),
            "OUTPUT_DIR": str(self.launcher.folder / "output"),
            "PYTHONPATH": ":".join(path),
            "PYTHONUNBUFFERED": "1",
            **(worker_runpod.variables(self.runpod) if style.name == "runpod_handler" else {}),
        }

    def instrumented(self, service: str) -> dict[str, str]:
        """What an operator sets, with short delays."""
        return {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{self.otlp}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_BLRP_SCHEDULE_DELAY": "200",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }

    # -- producers ----------------------------------------------------------------------------------------------------

    def produce(self, style: Style, *, with_us: bool) -> Server | None:
        """Starts what enqueues the jobs of a style; `enqueue` waits for it."""
        if style.name == "runpod_handler":
            return None
        label = f"{style.name}-{'api' if with_us else 'plain'}"
        env = environment(**self.services(style, 0 if with_us else PLAIN))
        if with_us:
            env |= self.instrumented(style.api)
        return self.launcher.start(label, (*_instrument(with_us=with_us), *self._producer(style, label)), env)

    def _producer(self, style: Style, label: str) -> tuple[str, ...]:
        if style.post:
            [self._ports[label]] = free_ports(1)
            port = str(self._ports[label])
            return python("uvicorn", "api:app", "--port", port, "--app-dir", str(style.folder))
        jobs = self.launcher.folder / f"{style.name}-jobs.json"
        jobs.write_text(json.dumps([sample.body for sample in style.samples]))
        return (sys.executable, str(style.folder / "enqueue.py"), str(jobs))

    @cached_property
    def _ports(self) -> dict[str, int]:
        return {}

    def enqueue(self, style: Style, producer: Server | None) -> None:
        """Sends the jobs through the API, or waits until the script has."""
        if producer is None:
            return
        if not style.post:
            assert producer.wait(40) == 0, producer.text()
            return
        port = self._ports[producer.name]
        producer.wait_until(partial(accepts_connections, port), "listening")
        for sample in style.samples:
            headers = {"Content-Type": "application/json", "x-correlation-id": sample.correlation_id}
            body = json.dumps(sample.body).encode()
            request = urllib.request.Request(f"http://{HOST}:{port}{style.post}", body, headers)
            status, answer = fetch(request)
            assert status in (200, 202), answer
        producer.stop()

    def left_in_redis(self, style: Style, database: int) -> list[Any]:
        """What a producer's jobs are in Redis, without clocks and random ids."""
        with redis.Redis.from_url(self.redis_url.removesuffix("/0") + f"/{database}") as client:
            return _DUMPS.get(style.name, _dump_nothing)(client, style)

    def keys(self, database: int) -> set[bytes]:
        with redis.Redis.from_url(self.redis_url.removesuffix("/0") + f"/{database}") as client:
            return set(client.keys("*"))

    # -- workers ------------------------------------------------------------------------------------------------------

    def start_worker(self, style: Style, **more: str) -> Server:
        """The worker as an operator starts it."""
        if style.name == "runpod_handler":
            jobs = self.launcher.folder / "runpod-jobs.json"
            jobs.write_text(json.dumps([sample.body for sample in style.samples]))
            command = python("tests.support.worker_runpod", "--port", str(self.runpod), str(jobs))
            self._serve("runpod", self.runpod, command)
        env = environment(**self.services(style), **self.instrumented(style.service), **more)
        return self.launcher.start(style.service, (*_instrument(with_us=True), *style.command), env)

    def prompts_running(self) -> int:
        """Prompts that ComfyUI is at work on."""
        return len(get_json(f"http://{HOST}:{self.comfyui}/queue")["queue_running"])

    def open_jobs(self) -> float:
        """Jobs under way that workers have reported to the gateway."""
        return sum(value for _, value in own_metrics(self.telemetry).get("otel_pipeline_open_jobs", []))

    def wait_for_jobs(self, style: Style, worker: Server) -> None:
        """Until every job is over by the worker's own word."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            worker.wait_until(
                lambda: self._done(client, style, worker) >= len(style.samples), "all jobs done", JOBS_S_MAX
            )

    def _done(self, client: Any, style: Style, worker: Server) -> int:
        if style.name == "runpod_handler":
            return len(get_json(f"http://{HOST}:{self.runpod}/results"))
        if style.name == "inline":  # it tells nobody
            text = worker.text()
            return text.count("\ndone ") + text.count("Traceback (most")
        return _DONE[style.name](client, [sample.id for sample in style.samples])

    # -- what came out ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Until the gateway's files have not grown for a moment."""
        files = [self.launcher.folder / name for name in ("traces.jsonl", "logs.jsonl")]
        sizes, since_s = [-1], time.monotonic()

        def quiet() -> bool:
            nonlocal sizes, since_s
            now = [file.stat().st_size if file.exists() else 0 for file in files]
            if now != sizes:
                sizes, since_s = now, time.monotonic()
            return time.monotonic() - since_s > 0.7

        until(quiet, "files that rest")

    def spans(self) -> list[Span]:
        return read_spans(self.launcher.folder / "traces.jsonl")

    def records(self) -> list[Record]:
        return read_records(self.launcher.folder / "logs.jsonl")

    def traces_of(self, *services: str) -> list[Trace]:
        """Those in which one of the services has a span."""
        found = traces(self.spans())
        return [trace for trace in found if {span.service for span in trace.spans} & set(services)]

    def _serve(self, name: str, port: int, command: tuple[str, ...]) -> None:
        server = self.launcher.start(name, command)
        server.wait_until(partial(accepts_connections, port), "listening")

    def _gateway_config(self) -> dict[str, Any]:
        folder = self.launcher.folder
        names = {"traces": "file", "logs": "file/logs", "metrics": "file/metrics"}
        return {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"{HOST}:{self.otlp}"}}}},
            "processors": {"lost_jobs": {"lost_after": self.lost_after}},
            "exporters": {name: {"path": str(folder / f"{signal}.jsonl")} for signal, name in names.items()},
            "extensions": {"health_check": {"endpoint": f"{HOST}:{self.health}"}},
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"address": f"{HOST}:{self.telemetry}"}},
                "pipelines": {
                    signal: {
                        "receivers": ["otlp"],
                        "processors": ["lost_jobs"] if signal == "traces" else [],
                        "exporters": [name],
                    }
                    for signal, name in names.items()
                },
            },
        }


def _instrument(*, with_us: bool) -> tuple[str, ...]:
    return (str(Path(sys.executable).with_name("opentelemetry-instrument")),) if with_us else ()


# -- payloads ----------------------------------------------------------------------------------------------------------


def _plain(values: Iterable[bytes]) -> list[bytes]:
    return [CLOCKS.sub(rb'"\1": 0', value) for value in values]


def _hash(client: Any, key: str) -> dict[bytes, bytes]:
    return {name: value for name, value in client.hgetall(key).items() if name not in (b"created_at", b"updated_at")}


def _dump_nothing(_client: Any, _style: Style) -> list[Any]:
    return []


def _dump_list(client: Any, style: Style) -> list[Any]:
    return _plain(client.lrange(style.queue, 0, -1))


def _dump_list_id(client: Any, style: Style) -> list[Any]:
    ids = client.lrange(style.queue, 0, -1)
    return [*ids, *(_hash(client, f"orchestrator:job:{each.decode()}") for each in ids)]


def _dump_stream(client: Any, style: Style) -> list[Any]:
    return [fields for _, fields in client.xrange(style.queue)]


def _dump_zset(client: Any, style: Style) -> list[Any]:
    members = client.zrange(style.queue, 0, -1, withscores=True)
    return [*members, *(_hash(client, f"gen:task:{each.decode()}") for each, _ in members)]


def _dump_rq(client: Any, _style: Style) -> list[Any]:
    ids = client.lrange("rq:queue:clips", 0, -1)
    return [zlib.decompress(client.hget(b"rq:job:" + each, "data")) for each in ids]


def _dump_arq(client: Any, style: Style) -> list[Any]:
    members = client.zrange(style.queue, 0, -1)
    bodies = [pickle.loads(client.get(b"arq:job:" + each)) for each in members]  # noqa: S301  our own
    return [*members, *({key: value for key, value in body.items() if key != "et"} for body in bodies)]


def _dump_celery(client: Any, _style: Style) -> list[Any]:
    return [base64.b64decode(json.loads(each)["body"]) for each in client.lrange("celery", 0, -1)]


_DUMPS: Final = {
    "list_json": _dump_list,
    "list_id": _dump_list_id,
    "streams": _dump_stream,
    "zset": _dump_zset,
    "rq_tasks": _dump_rq,
    "arq_tasks": _dump_arq,
    "celery_tasks": _dump_celery,
    "inline": _dump_list,
}


# -- how workers tell that they are done -------------------------------------------------------------------------------

_FINAL: Final = ("completed", "failed", "cancelled", "SUCCESS", "FAILURE", "100", "-1")


def _field(client: Any, key: str, field: str) -> Any:
    return json.loads(client.get(key) or "{}").get(field)


_DONE: Final[dict[str, Callable[[Any, list[str]], int]]] = {
    "list_json": lambda client, ids: sum(_field(client, f"image:status:{each}", "status") in _FINAL for each in ids),
    "list_id": lambda client, ids: sum(client.hget(f"orchestrator:job:{each}", "status") in _FINAL for each in ids),
    "streams": lambda client, _: int(client.xlen("render:results")),
    "zset": lambda client, ids: sum(client.hget(f"gen:task:{each}", "progress") in _FINAL for each in ids),
    "rq_tasks": lambda client, _: int(client.zcard("rq:finished:clips")),
    "arq_tasks": lambda client, _: len(client.keys("arq:result:*")),
    "celery_tasks": lambda client, ids: sum(_field(client, f"poster:{each}", "state") in _FINAL for each in ids),
}
