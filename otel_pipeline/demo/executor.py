"""The queue of the ComfyUI stand-in: one prompt at a time, messages at the recorded distances. Owns time, no socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import web

from otel_pipeline.demo.playback import Run
from otel_pipeline.demo.scenarios import JsonObject, Message, Recording

HISTORY_MAX: Final = 10_000
"""Finished prompts kept, as in ComfyUI."""

Deliver = Callable[[JsonObject, str | None], Awaitable[None]]
"""Sends a message to the client of that id, or to every client if the id is None."""


class Executor:
    """Runs prompts in the order of their numbers; `history` and `files` hold what is finished."""

    def __init__(self, interruption: Recording, deliver: Deliver, *, speed: float, run_s_min: float) -> None:
        self._interruption, self._deliver = interruption, deliver
        self._speed, self._run_s_min = speed, run_s_min
        self._posted, self._interrupted = asyncio.Event(), asyncio.Event()
        self.pending: list[Run] = []
        self.current: Run | None = None
        self.history: dict[str, JsonObject] = {}
        self.files: dict[str, str] = {}

    @property
    def remaining(self) -> int:
        return len(self.pending) + (self.current is not None)

    def post(self, run: Run) -> None:
        self.pending.append(run)
        self.pending.sort(key=lambda each: each.number)
        self._posted.set()

    def interrupt(self, prompt_id: str | None) -> None:
        """Ends the running prompt, if it is this one (None: whichever it is)."""
        if self.current and prompt_id in (None, self.current.prompt_id):
            self._interrupted.set()

    def status(self) -> JsonObject:
        """The body of a `status` message."""
        return {"status": {"exec_info": {"queue_remaining": self.remaining}}}

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """For `cleanup_ctx`: executes prompts from the application's start to its end."""
        task = asyncio.create_task(self._execute_all())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _execute_all(self) -> None:
        while True:
            await self._posted.wait()
            self._posted.clear()
            while self.pending:
                await self._execute(self.pending.pop(0))

    async def _execute(self, run: Run) -> None:
        self.current = run
        self._interrupted.clear()
        recorded = run.recording.messages
        # Behind the last message with a time stamp the prompt is over: what follows only tells so.
        end = max(index for index, each in enumerate(recorded) if "timestamp" in each.data) + 1
        epilogue = recorded[end:]
        stretch, started_s = run.recording.stretch(self._speed, self._run_s_min), time.monotonic()
        for message in recorded[:end]:
            if await self._interrupted_before(started_s + message.after_s * stretch):
                interruption, *epilogue_recorded = self._interruption.messages[-3:]
                await self._send(run, run.interruption(interruption))
                epilogue = tuple(epilogue_recorded)
                break
            await self._send(run, message)
        self._keep(run)
        self.current = None
        for message in epilogue:
            await self._send(run, message)

    async def _interrupted_before(self, deadline_s: float) -> bool:
        if (delay_s := deadline_s - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._interrupted.wait(), delay_s)
        return self._interrupted.is_set()

    async def _send(self, run: Run, message: Message) -> None:
        if message.kind == "status":
            await self._deliver({"type": "status", "data": self.status()}, None)
            return
        sent = run.send(message, time.time_ns() // 1_000_000)
        # A prompt without a client: only its progress goes out, and to everybody.
        if run.client_id is not None or message.kind == "progress_state":
            await self._deliver(sent, run.client_id)

    def _keep(self, run: Run) -> None:
        self.history[run.prompt_id] = run.history()
        self.files |= dict.fromkeys(run.files(), run.prompt_id)
        if len(self.history) > HISTORY_MAX:
            del self.history[next(iter(self.history))]
        if len(self.files) > HISTORY_MAX:
            del self.files[next(iter(self.files))]
