"""The data path: from a receiver's request to a durable batch.

Follow one span through five files, each from top to bottom:

    receivers/otlp_grpc.py   takes the request's bytes and waits for the verdict
    pipeline.py              this file: collects requests, scans them, runs the processors, commits, gives the verdicts
    processors/attributes.py (or any other) reads columns and records edits
    outbox.py                keeps the batch until every exporter is done with it
    exporters/otlp.py        sends it, called by exporters/sender.py

All of this file runs on the event loop of the gateway, and so do the servers: no request goes from thread to thread,
nothing here needs a lock. Requests that arrive while a batch is carried are the next batch, so the fixed costs of a
scan and of a commit are shared exactly when there is much to do; a lone request does not wait for company. `accept`
returns when the commit is done: an OK means that the span survives a crash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from otel_pipeline.contracts import Accepted, Rejected, RetryLater, Verdict
from otel_pipeline.errors import OutboxError, OutboxFull
from otel_pipeline.limits import COALESCE_BYTES_MAX, COALESCE_REQUESTS_MAX, GATHER_S, PENDING_BYTES_MAX, RETRY_DELAY_S
from otel_pipeline.outbox_state import Addition, ParkedRows
from otel_pipeline.quiet import Quiet
from otel_pipeline.wire.scan import BatchReader, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline.contracts import Processor, Rewriter
    from otel_pipeline.outbox import Outbox
    from otel_pipeline.stats import Stats
    from otel_pipeline.wire.batch import Batch
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)

INVALID_ID: Final = "invalid_id"
REDACTION_FAILED: Final = "redaction_failed"
INVALID_ID_TEXT: Final = "{} items have a trace id or span id of a wrong length; 16 and 8 bytes are allowed"


@dataclass(slots=True)
class Ticket:
    """One request in line."""

    body: bytes
    arrived_s: float
    verdict: asyncio.Future[Verdict]


class DataPath:
    """What the lanes share: the outbox, and the bound on what waits. Its methods are for the event loop alone."""

    def __init__(self, outbox: Outbox, stats: Stats, memory_short: Callable[[], bool]) -> None:
        self._outbox = outbox
        self._stats = stats
        self._memory_short = memory_short
        self._lanes: list[Lane] = []
        self._pending_bytes = 0
        self._stopping = False
        self._quiet = Quiet(log)

    def lane(self, receiver: str, transport: str, signal: Signal, pipelines: Sequence[Pipeline]) -> Lane:
        """An entrance for one receiver, transport and signal; what it takes goes to all these pipelines or to none."""
        lane = Lane(self, self._stats, (receiver, transport), signal, pipelines)
        self._lanes.append(lane)
        return lane

    async def stop(self) -> None:
        """Take no more; wait until what was handed in has its verdict. May be called twice."""
        self._stopping = True
        waiting = [ticket.verdict for lane in self._lanes for ticket in lane.waiting]
        if waiting:
            await asyncio.wait(waiting)

    async def accept(self, lane: Lane, body: bytes) -> Verdict:
        """Put a request in line and wait for its verdict."""
        refusal = self._refuse(len(body))
        if refusal:
            return refusal
        loop = asyncio.get_running_loop()
        ticket = Ticket(body, time.perf_counter(), loop.create_future())
        self._pending_bytes += len(body)
        lane.waiting.append(ticket)
        lane.waiting_bytes += len(body)
        if len(lane.waiting) == 1:
            busy = ticket.arrived_s - lane.carried_s < GATHER_S
            lane.turn = loop.call_later(GATHER_S if busy else 0.0, self._carry, lane)
        elif lane.waiting_bytes >= COALESCE_BYTES_MAX > lane.waiting_bytes - len(body) and lane.turn:
            lane.turn.cancel()
            lane.turn = loop.call_later(0.0, self._carry, lane)
        return await ticket.verdict

    def release(self, pipeline: Pipeline, processor: str, numbers: Sequence[int]) -> None:
        """Take parked rows on, from the processor that parked them. Raises OutboxError: they stay parked."""
        payloads = self._outbox.parked.payloads(pipeline.id, numbers)
        if not self._outbox.room(0):
            raise OutboxFull("the outbox is full")  # before the processors, which count what they see
        self._outbox.append([pipeline.resume(processor, numbers, payloads)])

    def _refuse(self, size: int) -> Verdict | None:
        """Why a request of this size cannot be taken now, if so."""
        if self._stopping:
            return RetryLater(RETRY_DELAY_S, "the gateway is stopping")
        if size > self._outbox.bytes_max:
            return Rejected(f"a request of {size} bytes, the outbox holds {self._outbox.bytes_max}")
        if self._pending_bytes and self._pending_bytes + size > PENDING_BYTES_MAX:
            return RetryLater(RETRY_DELAY_S, f"{self._pending_bytes} bytes of requests wait to be processed")
        if self._memory_short():
            return RetryLater(RETRY_DELAY_S, "memory is short")
        return None

    def _carry(self, lane: Lane) -> None:
        """Take the next requests of a lane to their verdicts."""
        tickets = self._collect(lane)
        lane.waiting_bytes -= sum(len(ticket.body) for ticket in tickets)
        lane.turn = asyncio.get_running_loop().call_later(0.0, self._carry, lane) if lane.waiting else None
        try:
            verdicts = self._process_and_commit(lane, tickets)
        except Exception:  # noqa: BLE001 - the callers must get a verdict whatever happens
            self._quiet.exception("a batch could not be processed")
            verdicts = [RetryLater(RETRY_DELAY_S, "internal error")] * len(tickets)
        now_s = lane.carried_s = time.perf_counter()
        for ticket, verdict in zip(tickets, verdicts, strict=True):
            self._pending_bytes -= len(ticket.body)
            lane.ack_seconds.observe(now_s - ticket.arrived_s)
            if not ticket.verdict.done():  # the caller may have gone
                ticket.verdict.set_result(verdict)

    def _collect(self, lane: Lane) -> list[Ticket]:
        """The next requests of a lane that go together."""
        tickets: list[Ticket] = []
        size = 0
        while lane.waiting and len(tickets) < COALESCE_REQUESTS_MAX:
            size += len(lane.waiting[0].body)
            if tickets and size > COALESCE_BYTES_MAX:
                break
            tickets.append(lane.waiting.popleft())
        return tickets

    def _process_and_commit(self, lane: Lane, tickets: list[Ticket]) -> list[Verdict]:
        bodies = [ticket.body for ticket in tickets]
        if not self._outbox.room(sum(map(len, bodies)) * len(lane.pipelines)):
            # Before the processors, which count what they see: the same requests will come again.
            full: Verdict = RetryLater(RETRY_DELAY_S, "the outbox is full")
            return [full] * len(tickets)
        parts: list[Part] = []
        additions = []
        for pipeline in lane.pipelines:
            addition, parts = pipeline.process(bodies)
            additions.append(addition)
        try:
            self._outbox.append(additions)
        except OutboxError as error:
            if not isinstance(error, OutboxFull):
                self._quiet.error("the outbox cannot be written: %s", error)
            later: Verdict = RetryLater(RETRY_DELAY_S, str(error))
            verdicts = [_refusal(part) or later for part in parts]
        else:
            verdicts = [_refusal(part) or _acceptance(part) for part in parts]
        lane.count(parts, verdicts)
        return verdicts


class Lane:
    """The entrance for one receiver, transport and signal."""

    def __init__(
        self, path: DataPath, stats: Stats, source: tuple[str, str], signal: Signal, pipelines: Sequence[Pipeline]
    ) -> None:
        self.pipelines: Final = pipelines
        self.waiting: Final[deque[Ticket]] = deque()
        self.waiting_bytes = 0
        self.carried_s = float("-inf")
        """When the last batch ended; a request that comes soon after waits a moment for others."""
        self.turn: asyncio.TimerHandle | None = None
        """When the requests that wait are carried."""
        self.ack_seconds: Final = stats.ack_seconds.labels(signal.word)
        self._path = path
        self._accepted = stats.accepted[signal].labels(*source)
        self._refused = stats.refused[signal].labels(*source)
        self._outcomes = {
            outcome: stats.requests.labels(*source, signal.word, outcome)
            for outcome in ("accepted", "partial", "retry_later", "rejected")
        }

    async def accept(self, body: bytes) -> Verdict:
        """Hand in a request and wait until it is durable or refused."""
        verdict = await self._path.accept(self, body)
        self._outcomes[_outcome(verdict)].inc()
        return verdict

    def count(self, parts: Sequence[Part], verdicts: Sequence[Verdict]) -> None:
        """Count the items of a batch by their verdicts."""
        accepted = refused = 0
        for part, verdict in zip(parts, verdicts, strict=True):
            taken = part.items - part.invalid if isinstance(verdict, Accepted) else 0
            accepted += taken
            refused += part.items - taken
        self._accepted.inc(accepted)
        self._refused.inc(refused)


class Pipeline:
    """One pipeline of the configuration: a scan and its processors in order."""

    def __init__(
        self, pipeline_id: str, signal: Signal, processors: Sequence[tuple[str, Processor]], stats: Stats
    ) -> None:
        self.id: Final = pipeline_id
        rewriters = [cast("Rewriter", processor) for _, processor in processors if hasattr(processor, "rewrite")]
        self._rewrite: Final = rewriters[0].rewrite if rewriters else None
        self.signal: Final = signal
        keys = [key for _, processor in processors for key in sorted(processor.attributes(signal))]
        self._reader = BatchReader(signal, keys)
        self._quiet = Quiet(log)
        self._steps = [Step(name, processor, signal, stats) for name, processor in processors]

    def process(self, bodies: Sequence[bytes]) -> tuple[Addition, list[Part]]:
        """What the requests add to this pipeline's stream, and what became of each of them."""
        bodies, lost = self._rewritten(bodies)
        batch, parts = self._reader.read(bodies)
        dropped = {INVALID_ID: batch.drop(batch.invalid)} if any(part.invalid for part in parts) else {}
        if lost:
            dropped[REDACTION_FAILED] = sum(part.items for part in lost.values() if not part.error)
            parts = [lost.get(index, part) for index, part in enumerate(parts)]
        received = sum(part.items for part in parts if not part.error)
        return self._run(batch, received, dropped, 0), parts

    def resume(self, processor: str, numbers: Sequence[int], payloads: Sequence[bytes]) -> Addition:
        """The same for parked rows, from the processor that parked them on."""
        batch, parts = self._reader.read(payloads)
        batch.released = True
        first = next((place for place, step in enumerate(self._steps) if step.name == processor), len(self._steps))
        addition = self._run(batch, sum(part.items for part in parts), {}, first)
        return replace(addition, received=0, released=numbers)

    def _run(self, batch: Batch, received: int, dropped: dict[str, int], first: int) -> Addition:
        """What the processors from number `first` on make of a batch."""
        filtered = {}
        parked: list[ParkedRows] = []
        left = received - sum(dropped.values())
        for step in self._steps[first:]:
            gone = step.run(batch, left, self._quiet)
            if gone:
                left -= gone
                parked += [ParkedRows(step.name, *rows) for rows in batch.parked]
                gone -= sum(items for _, items, _ in batch.parked)
                batch.parked.clear()
            if gone:
                filtered[step.name] = gone
        payload = batch.encode() if left else b""
        return Addition(self.id, payload, left, received, filtered, dropped, batch.records, parked)

    def _rewritten(self, bodies: Sequence[bytes]) -> tuple[Sequence[bytes], dict[int, Part]]:
        """The requests as a rewriter leaves them. One that it breaks on is emptied: what became of it, by its index."""
        if self._rewrite is None:
            return bodies, {}
        rewritten = list(bodies)
        lost = {}
        for index, body in enumerate(bodies):
            try:
                rewritten[index] = self._rewrite(self.signal, body)
            except Exception as error:  # noqa: BLE001 - fails closed: nothing passes that was not rewritten
                self._quiet.error("a request could not be redacted: %s", type(error).__name__)  # no text: it may quote
                lost[index] = self._reader.read([body])[1][0]
                rewritten[index] = b""
        return rewritten, lost


class Step:
    """One processor in one pipeline, with its counters."""

    def __init__(self, name: str, processor: Processor, signal: Signal, stats: Stats) -> None:
        self.name: Final = name
        self._process = processor.process
        self._incoming = stats.incoming.labels(name, signal.word)
        self._outgoing = stats.outgoing.labels(name, signal.word)
        self._failures = stats.processor_failures.labels(name)

    def run(self, batch: Batch, items: int, quiet: Quiet) -> int:
        """Run the processor on a batch that still has so many items; returns how many it dropped or parked."""
        try:
            self._process(batch)
        except Exception:  # noqa: BLE001 - a third party's code must not cost data
            self._failures.inc()
            quiet.exception("processor %s failed, the batch goes on without it", self.name)
        gone = items - batch.items() if batch.edits.dropped else 0
        self._incoming.inc(items)
        self._outgoing.inc(items - gone)
        return gone


def _outcome(verdict: Verdict) -> str:
    if isinstance(verdict, Accepted):
        return "partial" if verdict.rejected else "accepted"
    return "rejected" if isinstance(verdict, Rejected) else "retry_later"


def _refusal(part: Part) -> Verdict | None:
    """Why a request has no rows in the batch, if so."""
    if part.crowded_out:
        return RetryLater(RETRY_DELAY_S, "too many items at a time")
    return Rejected(str(part.error)) if part.error else None


def _acceptance(part: Part) -> Verdict:
    return Accepted(part.invalid, INVALID_ID_TEXT.format(part.invalid)) if part.invalid else ACCEPTED


ACCEPTED: Final = Accepted()
