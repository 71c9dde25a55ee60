"""Where the time of the worker side goes: python -m tests.benchmarks.worker_profile [--profile OPERATION].

One process for each of plain, official and ours, in turn; of each operation the median wall time and the CPU time of
one call in the best round, in microseconds. With --profile one operation runs under cProfile in this package's mode.
Whole workers are measured by worker.py; this tells which step to look at. Nothing of ours is imported before the
instrumentation is in, as in a worker.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import pstats
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from statistics import median
from typing import Any, Final

MODES: Final = ("plain", "official", "ours")
ROUND: Final = 100
"""Calls between two looks at the clock of the CPU, whose ticks are coarse."""
MESSAGE: Final = (
    b'{"job_id":"j1","user_id":"u1","workflow":"portrait","priority":2,"num_images":4,"width":1024,"height":1024}'
)
FRAME: Final = json.dumps({"type": "progress", "data": {"value": 3, "max": 20, "prompt_id": "3e3920d2", "node": "3"}})

Operation = Callable[[], object]


def graph() -> dict[str, Any]:
    """The ten nodes of an SDXL workflow with a refiner's upscale."""
    text = "portrait of a woman in a garden, late light, film grain, 85 mm"
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 1,
                "steps": 20,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["10", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["10", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry, low quality", "clip": ["10", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "bench", "images": ["12", 0]}},
        "10": {
            "class_type": "LoraLoader",
            "inputs": {
                "lora_name": "film.safetensors",
                "strength_model": 0.8,
                "strength_clip": 0.8,
                "model": ["4", 0],
                "clip": ["4", 1],
            },
        },
        "11": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "4x-UltraSharp.pth"}},
        "12": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["11", 0], "image": ["8", 0]}},
    }


def measured(operation: Operation, rounds: int) -> tuple[float, float]:
    """Median wall time and CPU time of one call, both of the best round: neighbours only make it slower."""
    found: list[tuple[float, float]] = []
    for _ in range(10):
        operation()
    for _ in range(rounds):
        wall: list[int] = []
        begun_ns = time.process_time_ns()
        for _ in range(ROUND):
            before_ns = time.perf_counter_ns()
            operation()
            wall.append(time.perf_counter_ns() - before_ns)
        found.append((median(wall) / 1000, (time.process_time_ns() - begun_ns) / ROUND / 1000))
    return min(wall_us for wall_us, _ in found), min(cpu_us for _, cpu_us in found)


def redis_operations(url: str) -> dict[str, Operation]:
    """In the order they are to run in: a pop leaves a job open, an empty one ends it."""
    import redis  # noqa: PLC0415

    client = redis.Redis.from_url(url)
    client.flushdb()
    number = itertools.count()
    body = '", "user_id": "user-1", "tier": "pro", "workflow": "portrait", "model": "sdxl", "prompt": "' + "x" * 300

    def push() -> object:
        return client.rpush("bench:queue", f'{{"job_id": "{uuid.UUID(int=next(number) << 64)}{body}"}}')

    def pop() -> None:
        assert client.blpop(["bench:queue"], timeout=1)

    return {
        "GET outside": lambda: client.get("config"),
        "empty LPOP": lambda: client.lpop("bench:empty"),
        "push": push,
        "pop": pop,
        "GET in a job": lambda: client.get("config"),
        "INCR in a job": lambda: client.incr("n"),
        "HSET in a job": lambda: client.hset("bench:status", mapping={"stage": 3}),
        "HSET of the job": lambda: client.hset(
            "job:00000000-0000-0000-0000-000000000000:status", mapping={"status": "processing", "stage": "x"}
        ),
    }


def own_operations() -> dict[str, Operation]:
    """Steps without a server."""
    from opentelemetry import trace  # noqa: PLC0415

    from otel_pipeline.worker import identity, outcomes  # noqa: PLC0415
    from otel_pipeline.worker.comfyui import exchange, sockets  # noqa: PLC0415
    from otel_pipeline.worker.comfyui.answers import UNKNOWN, End  # noqa: PLC0415
    from otel_pipeline.worker.comfyui.prompts import prompts  # noqa: PLC0415
    from otel_pipeline.worker.jobs import Origin, job_end, job_start  # noqa: PLC0415
    from otel_pipeline.worker.spans import JobAttributes  # noqa: PLC0415

    job = job_start(Origin("redis", "bench:queue"), MESSAGE)
    job_end(job)
    number = itertools.count()
    within, processor = job.context, JobAttributes()
    text = json.dumps({"prompt": graph(), "client_id": "bench"}).encode()
    done = {"status": "completed", "url": "https://cdn/a.png", "job_id": "j1"}

    class Socket: ...

    socket = Socket()

    def post() -> None:
        opened = exchange.begin("POST", "http://127.0.0.1:8188/prompt", lambda: text)
        assert opened is not None
        exchange.request_body(opened, text)
        exchange.leave(opened)
        exchange.answered(opened, 200, lambda _: None)
        exchange.received(opened, b'{"prompt_id": "p-%d", "number": 1, "node_errors": {}}' % next(number))
        assert opened.prompt is not None
        prompts.end(opened.prompt, End(UNKNOWN), time.time_ns(), live=True)

    def describe() -> None:
        processor.on_start(span, job.context)
        processor.on_end(span)

    def whole() -> None:
        job_end(job_start(Origin("redis", "bench:queue"), MESSAGE))

    tracer = trace.get_tracer("bench")
    span = tracer.start_span("bench", within)
    fresh = itertools.count()
    job.ended_ns = 0
    return {
        "identity.fields, the same": lambda: identity.fields(MESSAGE, "bench:queue"),
        "identity.fields, new": lambda: identity.fields(MESSAGE.replace(b"j1", b"j%d" % next(fresh)), "bench:queue"),
        "identity.fields, bare": lambda: identity.fields(b"job-%d" % next(fresh), "bench:queue"),
        "job_start + job_end": whole,
        "span processor": describe,
        "span": lambda: tracer.start_span("bench", within).end(),
        "status_write of another": lambda: outcomes.status_write(job, "bench:status", {"stage": 3}),
        "status_write of the job": lambda: outcomes.status_write(job, "job:j1", {"status": "processing"}),
        "status_write, final": lambda: outcomes.status_write(job, "job:j1", done),
        "returned": lambda: outcomes.returned(done),
        "POST /prompt": post,
        "WebSocket frame": lambda: sockets.frame(socket, FRAME),
    }


def child(mode: str, options: argparse.Namespace) -> None:
    from tests.benchmarks.worker_load import flush, instrument  # noqa: PLC0415

    instrument(mode)
    operations = {} if options.without_redis else redis_operations(options.redis)
    profiled = options.profile
    if mode == "ours" and (profiled is None or profiled not in operations):
        operations |= own_operations()
    found: dict[str, tuple[float, float]] = {}
    for name, operation in operations.items():
        if name == profiled:
            with cProfile.Profile() as profile:
                for _ in range(1000):
                    operation()
            pstats.Stats(profile).sort_stats(options.sort).print_stats(45)
            return
        found[name] = measured(operation, options.rounds)
        flush()
    if profiled is None:
        print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=MODES, help="run in this process")
    parser.add_argument("--redis", default="")
    parser.add_argument("--rounds", type=int, default=10, help=f"of {ROUND} calls")
    parser.add_argument("--profile", metavar="OPERATION")
    parser.add_argument("--sort", default="tottime")
    parser.add_argument("--without-redis", action="store_true")
    options = parser.parse_args()
    if options.mode:
        child(options.mode, options)
        return
    from otel_pipeline.demo.redis_server import redis_server  # noqa: PLC0415

    with redis_server() as url:
        command = [sys.executable, "-m", "tests.benchmarks.worker_profile", "--redis", url, *sys.argv[1:], "--mode"]
        if options.profile:
            subprocess.run([*command, "ours"], check=True)
            return
        found = {
            mode: json.loads(subprocess.run([*command, mode], check=True, stdout=subprocess.PIPE).stdout)
            for mode in (("ours",) if options.without_redis else MODES)
        }
    print(f"{'wall (CPU), us':26}" + "".join(f"{mode:>18}" for mode in found))
    for name in found["ours"]:
        cells = [found[mode].get(name) for mode in found]
        print(f"{name:26}" + "".join(f"{c[0]:9.1f} ({c[1]:6.1f})" if c else f"{'':18}" for c in cells))


if __name__ == "__main__":
    main()
