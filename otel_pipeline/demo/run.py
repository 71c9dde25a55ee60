"""The story of `otel-pipeline demo`: start a platform on loopback, send jobs through it, draw their traces, show the
bill, stop it.

Real: Redis, the gateway, the worker under `opentelemetry-instrument`, and Jaeger if there is a binary. Stand-ins:
ComfyUI and text to speech, served from this process, and two simulated GPUs.

    python -m otel_pipeline.demo.run --jobs 8
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import redis
from aiohttp import ClientError, ClientSession

from otel_pipeline.demo import bill, comfyui, tree, tts
from otel_pipeline.demo.environment import Environment, prepare
from otel_pipeline.demo.gpus import NAME as GPU_NAME
from otel_pipeline.demo.loopback import serving
from otel_pipeline.demo.processes import Child, DemoError, child
from otel_pipeline.demo.producer import MIX, STATUS_KEY
from otel_pipeline.demo.redis_server import redis_server
from otel_pipeline.ledger.money import NANO

FINAL: Final = ("completed", "failed")
TRACES_DRAWN: Final = 6
READY_S_MAX: Final = 30.0
ENQUEUE_S_MAX: Final = 60.0
JOB_S_MAX: Final = 15.0
"""For each job; a usual one takes about two seconds."""
TRACES_S_MAX: Final = 20.0
TRACES_RUNNING_S_MAX: Final = 3.0
"""The same while the worker goes on: it polls Redis, so the file of the traces never rests."""
QUIET_S: Final = 2.0
"""The traces are complete when their file has not grown for so long: longer than the delays of all exporters, and than
spans wait for the samples of their GPUs."""
POLL_S: Final = 0.1
PROMPT_S_MIN: Final = 0.6
ERROR_CHARACTERS_SHOWN: Final = 90


class Writer(Protocol):
    """Where the demo speaks: a rich Console, or anything with its `print`."""

    def print(self, *objects: Any, markup: bool, highlight: bool, soft_wrap: bool) -> None: ...


def run(jobs: int, out: Writer, *, keep_running: bool = False, keep_data: bool = False) -> int:
    """Plays the demo; returns the exit code. `keep_running` goes on until Ctrl-C, `keep_data` leaves the files."""
    try:
        with _data_folder(out, keep_data=keep_data) as folder, redis_server() as redis_url:
            asyncio.run(_Demo(out, prepare(folder), redis_url).play(jobs, keep_running=keep_running))
    except DemoError as error:
        _say(out, f"demo: {error}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say(out, "stopped")
        return 0 if keep_running else 130
    return 0


@dataclass(frozen=True, slots=True)
class _Demo:
    out: Writer
    environment: Environment
    redis_url: str

    async def play(self, jobs: int, *, keep_running: bool) -> None:
        _cancel_on_sigterm()
        began_ns = time.time_ns()
        async with AsyncExitStack() as stack:
            gateway = await self.start_gateway(stack)
            worker = await self.start_worker(stack)
            expected = await self.enqueue(jobs)
            await self.wait_for_jobs(worker, expected)
            if not keep_running:
                await asyncio.to_thread(worker.stop)
            await self.draw_traces(gateway, TRACES_RUNNING_S_MAX if keep_running else TRACES_S_MAX)
            # All that is to be booked was over when the file of the traces began to rest.
            ended_ns = time.time_ns() - int(QUIET_S * NANO)
            booked_ns = await asyncio.to_thread(bill.wait_until_booked, self.environment.folder, ended_ns)
            asked = bill.questions(began_ns, booked_ns)
            self.say(await bill.render(self.environment, asked) + "\n")
            self.say_where_to_look(bill.typed(self.environment, bill.later(began_ns)), keep_running=keep_running)
            if keep_running:
                await asyncio.Event().wait()

    async def start_gateway(self, stack: AsyncExitStack) -> Child:
        folder, variables = self.environment.folder, self.environment.variables()
        if self.environment.jaeger:
            command = self.environment.jaeger_command(self.environment.jaeger)
            # Else it traces itself, to port 4317: every query of its page would come back to it through the gateway.
            quiet = variables | {"OTEL_TRACES_SAMPLER": "always_off"}
            jaeger = stack.enter_context(child("jaeger", command, folder, quiet))
            await _until_ready(jaeger, self.environment.url("jaeger_ui", "/"))
        gateway = stack.enter_context(child("gateway", self.environment.gateway_command(), folder, variables))
        await _until_ready(gateway, self.environment.url("health", "/readyz"))
        ports = self.environment.ports
        self.say(f"gateway: takes OTLP on port {ports['grpc']} (gRPC) and port {ports['http']} (HTTP)")
        return gateway

    async def start_worker(self, stack: AsyncExitStack) -> Child:
        folder = self.environment.folder
        comfyui_url = await stack.enter_async_context(serving(comfyui.make_app(run_s_min=PROMPT_S_MIN)))
        gpus = self.environment.gpus_command(comfyui_url)
        stack.enter_context(child("gpus", gpus, folder, self.environment.variables()))
        self.say(f"GPUs: two that are {GPU_NAME.split()[0].lower()}, as this needs none; the second is used by nobody")
        services = {
            "REDIS_URL": self.redis_url,
            "COMFYUI_URL": comfyui_url,
            "TTS_URL": await stack.enter_async_context(serving(tts.make_app())),
            "OUTPUT_DIR": str(folder / "output"),
        }
        command = self.environment.instrumented_command("worker")
        variables = self.environment.instrumented_variables("video-worker") | services
        worker = stack.enter_context(child("worker", command, folder, variables))
        # Stopped in a thread: while it finishes its job it needs the stand-ins, which live in this loop.
        stack.push_async_callback(asyncio.to_thread, worker.stop)
        self.say("worker: runs under opentelemetry-instrument, and knows nothing of it")
        return worker

    async def enqueue(self, jobs: int) -> dict[str, str]:
        """Sends the jobs from a process of their own, as a platform's API would; returns what to expect of each id."""
        command = self.environment.instrumented_command("producer", str(jobs))
        variables = self.environment.instrumented_variables("video-api") | {"REDIS_URL": self.redis_url}
        with child("producer", command, self.environment.folder, variables) as sender:
            deadline_s = time.monotonic() + ENQUEUE_S_MAX
            while not sender.ended and time.monotonic() < deadline_s:
                await asyncio.sleep(POLL_S)
            if sender.stop() != 0:
                raise sender.failure("could not enqueue the jobs")
            lines = sender.log.read_text("utf-8").splitlines()
        # The log holds warnings of the SDK too, if it has any.
        kinds = {kind for kind, *_ in MIX}
        return dict(line.split() for line in lines if line.partition(" ")[2] in kinds)

    async def wait_for_jobs(self, worker: Child, expected: Mapping[str, str]) -> None:
        deadline_s, open_ids = time.monotonic() + READY_S_MAX + JOB_S_MAX * len(expected), dict(expected)
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as database:
            while open_ids:
                if worker.ended or time.monotonic() > deadline_s:
                    raise worker.failure(f"left {len(open_ids)} of {len(expected)} jobs without a result")
                for job_id in list(open_ids):
                    status: Any = database.hgetall(STATUS_KEY.format(id=job_id))
                    if status.get("status") in FINAL:
                        self.say_result(job_id, open_ids.pop(job_id), status)
                await asyncio.sleep(POLL_S)

    async def draw_traces(self, gateway: Child, patience_s: float) -> None:
        file = self.environment.folder / "traces.jsonl"
        if not await _stops_growing(file, patience_s):
            raise gateway.failure(f"wrote no traces to {file}")
        with file.open(encoding="utf-8") as lines:
            self.say("\n" + tree.render(lines, TRACES_DRAWN) + "\n")

    def say_result(self, job_id: str, expected: str, status: Mapping[str, str]) -> None:
        error = status.get("error", "") if status["status"] == "failed" else ""
        reason = " ".join(error.split())[:ERROR_CHARACTERS_SHOWN]
        self.say(f"  job {job_id[:8]} {expected:<17} {status['status']:<9} {reason}".rstrip())

    def say_where_to_look(self, costs: str, *, keep_running: bool) -> None:
        places = {
            "metrics of the platform": self.environment.url("metrics", "/metrics"),
            "metrics of the gateway": self.environment.url("telemetry", "/metrics"),
            "health": self.environment.url("health", "/readyz"),
            "traces, logs, configuration": str(self.environment.folder),
            "costs": costs,
            "failures by group": f"otel-pipeline errors list --data-dir {self.environment.folder}",
            "what waits in the gateway": f"otel-pipeline queue --data-dir {self.environment.folder}",
        }
        if self.environment.jaeger:
            places["traces in Jaeger"] = self.environment.url("jaeger_ui")
        if keep_running:
            places["more jobs"] = f"REDIS_URL={self.redis_url} python -m otel_pipeline.demo.producer 8"
        self.say(
            "where to look"
            + (" (Ctrl-C ends the demo)" if keep_running else " while the demo runs with --keep-running")
        )
        for name, place in places.items():
            self.say(f"  {name:<28} {place}")

    def say(self, text: str) -> None:
        _say(self.out, text)


def _say(out: Writer, text: str) -> None:
    # Text with foreign names in it: no markup, and no wrapping that would break the trees.
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _cancel_on_sigterm() -> None:
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _until_ready(server: Child, url: str) -> None:
    deadline_s = time.monotonic() + READY_S_MAX
    async with ClientSession() as http:
        while not await _answers(http, url):
            if server.ended or time.monotonic() > deadline_s:
                raise server.failure("did not become ready")
            await asyncio.sleep(POLL_S)
    # Somebody else may have taken the port in between, and answered in its place.
    if server.ended:
        raise server.failure("ended at its start")


async def _answers(http: ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except (ClientError, TimeoutError):
        return False


async def _stops_growing(file: Path, patience_s: float) -> bool:
    """Whether the file got content, once it has not grown for a while or time is up."""
    deadline_s, size, since_s = time.monotonic() + patience_s, 0, time.monotonic()
    while time.monotonic() < deadline_s and not (size and time.monotonic() - since_s > QUIET_S):
        await asyncio.sleep(POLL_S)
        grown = file.stat().st_size if file.exists() else 0
        if grown != size:
            size, since_s = grown, time.monotonic()
    return size > 0


@contextmanager
def _data_folder(out: Writer, *, keep_data: bool) -> Iterator[Path]:
    if keep_data:
        folder = tempfile.mkdtemp(prefix="otel-pipeline-demo-")
        try:
            yield Path(folder)
        finally:
            _say(out, f"files kept in {folder}")
        return
    with tempfile.TemporaryDirectory(prefix="otel-pipeline-demo-") as folder:
        yield Path(folder)


class _Terminal:
    """A Writer without rich."""

    def print(self, *objects: Any, **_style: bool) -> None:
        print(*objects, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A video platform on loopback, traced by otel_pipeline.")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--keep-running", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--keep", action="store_true", help="leave the files")
    arguments = parser.parse_args()
    raise SystemExit(run(arguments.jobs, _Terminal(), keep_running=arguments.keep_running, keep_data=arguments.keep))


if __name__ == "__main__":
    main()
