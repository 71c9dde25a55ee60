"""The demo's stand-ins and its worker together, over real sockets and a real Redis server on loopback."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from aiohttp import ClientSession

from otel_pipeline.demo import comfyui, producer, tts, worker
from otel_pipeline.demo.loopback import free_ports, serving
from otel_pipeline.demo.processes import Child, child
from otel_pipeline.demo.redis_server import redis_server

Json = dict[str, Any]
Finished = tuple[Path, dict[str, tuple[producer.Job, Json]]]
"""The output folder, and the jobs with their status by what was expected of them."""
WAIT_S_MAX = 20.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not await condition():
        assert time.monotonic() < deadline_s, "waited too long"
        await asyncio.sleep(0.01)


class Platform:
    """Redis, the stand-ins and one worker."""

    def __init__(self, database: redis.Redis, worker_process: Child, output: Path) -> None:
        self.database = database
        self.worker = worker_process
        self.output = output

    def status(self, job: producer.Job) -> dict[str, str]:
        values: Any = self.database.hgetall(producer.STATUS_KEY.format(id=job.id))
        return dict(values)

    async def until_status(self, job: producer.Job, *wanted: str) -> dict[str, str]:
        async def reached() -> bool:
            assert not self.worker.ended, self.worker.failure("ended")
            return self.status(job)["status"] in wanted

        await until(reached)
        return self.status(job)


@asynccontextmanager
async def platform(folder: Path, prompt_s: float) -> AsyncIterator[Platform]:
    with redis_server() as redis_url, redis.Redis.from_url(redis_url, decode_responses=True) as database:
        async with (
            serving(comfyui.make_app(run_s_min=prompt_s)) as comfyui_url,
            serving(tts.make_app(delay_s=0)) as tts_url,
        ):
            environment = {
                "REDIS_URL": redis_url,
                "COMFYUI_URL": comfyui_url,
                "TTS_URL": tts_url,
                "OUTPUT_DIR": str(folder / "output"),
                "NO_PROXY": "127.0.0.1",
            }
            # As a script, not as a module: it has to work without this project around it.
            with child("worker", (sys.executable, worker.__file__), folder, environment) as process:
                try:
                    yield Platform(database, process, folder / "output")
                finally:
                    await asyncio.to_thread(process.stop)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One job of each kind, worked off; by what was expected of it."""
    folder = tmp_path_factory.mktemp("platform")

    async def work_off() -> dict[str, tuple[producer.Job, Json]]:
        jobs = list(producer.make_jobs(len(producer.MIX), time.time()))
        async with platform(folder, prompt_s=0.05) as running:
            for job in jobs:
                producer.enqueue(running.database, job)
            return {job.expected: (job, await running.until_status(job, "completed", "failed")) for job in jobs}

    return folder / "output", asyncio.run(work_off())


def test_a_good_job_ends_completed_with_its_files(finished: Finished) -> None:
    output, jobs = finished
    job, status = jobs["success"]
    assert status["status"] == "completed"
    content = {file.name: file.read_bytes()[:4] for file in (output / job.id).iterdir()}
    assert content == {"voice.wav": b"RIFF", "image.png": b"\x89PNG", "video.png": b"\x89PNG"}


def test_a_job_that_asked_for_too_much_is_tried_again_with_less(finished: Finished) -> None:
    output, jobs = finished
    job, status = jobs["retried"]
    assert status["status"] == "completed"
    assert (output / job.id / "video.png").is_file()


def test_a_job_from_the_cache_ends_completed(finished: Finished) -> None:
    assert finished[1]["cached"][1]["status"] == "completed"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("out_of_memory", "ComfyUIError: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        ("execution_error", "ComfyUIError: ValueError: boom from node"),
        (
            "validation_error",
            "ComfyUIError: Prompt outputs failed validation: ckpt_name: 'missing.safetensors' not in []",
        ),
        ("tts_rate_limited", "HTTPStatusError: Client error '429 Too Many Requests'"),
        ("tts_broken", "HTTPStatusError: Server error '500 Internal Server Error'"),
    ],
)
def test_a_failure_is_swallowed_into_the_status(kind: str, error: str, finished: Finished) -> None:
    _, status = finished[1][kind]
    assert status["status"] == "failed"
    assert status["error"].startswith(error)


def test_sigterm_lets_the_worker_finish_its_job_and_take_no_other(tmp_path: Path) -> None:
    async def play() -> None:
        first, second = producer.make_jobs(2, time.time())
        async with platform(tmp_path, prompt_s=0.4) as running:
            producer.enqueue(running.database, first)
            producer.enqueue(running.database, second)
            await running.until_status(first, "processing")
            running.worker.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(running.worker.process.wait, WAIT_S_MAX) == 0
            assert running.status(first)["status"] == "completed"
            assert running.status(second)["status"] == "queued"

    asyncio.run(play())


def test_redis_is_gone_after_its_block() -> None:
    with redis_server() as url, redis.Redis.from_url(url) as database:
        assert database.ping()
    with redis.Redis.from_url(url, retry=None) as database, pytest.raises(redis.ConnectionError):
        database.ping()


def test_text_to_speech_counts_characters_and_fails_when_told() -> None:
    async def play() -> None:
        async with serving(tts.make_app(fail_every=4, delay_s=0)) as url, ClientSession(url) as http:

            async def speak(body: Json) -> tuple[int, str | None, bytes]:
                async with http.post("/v1/text-to-speech/narrator", json=body) as answer:
                    return answer.status, answer.headers.get("x-character-count"), (await answer.read())[:4]

            assert await speak({"text": "Hello", "model_id": "m"}) == (200, "5", b"RIFF")
            assert (await speak({"text": f"Hello{tts.BROKEN}"}))[0] == 500
            assert (await speak({"text": f"Hello{tts.RATE_LIMITED}"}))[0] == 429
            assert (await speak({"text": "the fourth request"}))[0] == 429
            assert (await speak({"text": 5}))[0] == 422

    asyncio.run(play())


def test_ports_are_different_and_avoid_those_in_use() -> None:
    async def play() -> None:
        async with serving(tts.make_app()) as url:
            used = int(url.rpartition(":")[2])
            ports = free_ports({"a": used, "b": 0, "c": 0})
            assert used not in ports.values()
            assert len(set(ports.values())) == 3

    asyncio.run(play())
