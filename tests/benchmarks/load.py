"""Load generator: numbered spans over OTLP gRPC, bounded in count and time, one JSON result on stdout.

With --rate 0 it is a closed loop: each of --in-flight senders has one request outstanding, like the single export
thread of an SDK. With a rate, request i is due at i * spans / rate; a large `behind_ms_max` in the result says that the
generator (or the in-flight limit) could not keep the schedule, and its latencies then flatter the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import signal
import sys
import time
from array import array
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.benchmarks import ranges
from tests.benchmarks.payloads import FAILING, SpanRequests
from tests.benchmarks.raw_grpc import EXPORT_TRACES, channel_options

REQUESTS_MAX = 5_000_000  # 40 MB of latencies.
SECONDS_MAX = 7_200.0
CALL_TIMEOUT_S = 10.0  # OTEL_EXPORTER_OTLP_TIMEOUT of the SDKs.
CONNECT_TIMEOUT_S = 30.0
RETRY_DELAY_S_MIN = 0.025
RETRY_DELAY_S_MAX = 0.4
# The codes that OTLP calls retryable without conditions.
RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send; `grace_s` is how long outstanding requests may be retried once sending has ended."""

    target: str
    spans_per_request: int = 512
    first: int = 0
    requests_max: int = REQUESTS_MAX
    seconds: float = 5.0
    rate_spans_s: float = 0.0
    in_flight: int = 16
    connections: int = 4
    retry: bool = False
    grace_s: float = 30.0
    failing: str = "some"
    """Which spans are errors; see payloads.FAILING."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What was acknowledged and how fast; `acked` are span numbers, `next_number` is the first one unused."""

    requests: int
    spans: int
    rejected_spans: int
    retries: int
    abandoned: int
    errors: dict[str, int]
    seconds: float
    spans_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    ack_max_ms: float
    behind_ms_max: float
    acked: ranges.Ranges
    next_number: int


class Load:
    """One run of a plan; `stop()` ends the sending, the outstanding requests are still brought home."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._payloads = SpanRequests(plan.spans_per_request, failing=plan.failing)
        self._next = 0
        self._started_s = 0.0
        self._ended_s = 0.0
        self._deadline_s = float("inf")
        self._acked = array("q")
        self._latencies_s = array("d")
        self._behind_s = 0.0
        self._errors: Counter[str] = Counter()
        self._retries = 0
        self._rejected = 0

    def stop(self) -> None:
        self._deadline_s = min(self._deadline_s, time.monotonic())

    async def run(self, *, hold: bool) -> LoadResult:
        plan = self._plan
        channels = [grpc.aio.insecure_channel(plan.target, options=channel_options()) for _ in range(plan.connections)]
        try:
            await asyncio.wait_for(asyncio.gather(*(one.channel_ready() for one in channels)), CONNECT_TIMEOUT_S)
            if hold:
                await asyncio.to_thread(_hold)
            calls: list[Any] = [one.unary_unary(EXPORT_TRACES) for one in channels]
            self._started_s = time.monotonic()
            self._deadline_s = min(self._deadline_s, self._started_s + plan.seconds)
            await asyncio.gather(*(self._sender(calls[i % len(calls)]) for i in range(plan.in_flight)))
            self._ended_s = time.monotonic()
        finally:
            for one in channels:
                await one.close()
        return self._result()

    async def _sender(self, call: Any) -> None:
        size = self._plan.spans_per_request
        while (index := self._take()) is not None:
            if self._plan.rate_spans_s:
                await self._wait_until_due(index)
            sent_s = time.monotonic()
            body = self._payloads.request(self._plan.first + index * size, time.time_ns())
            if await self._deliver(call, body):
                self._latencies_s.append(time.monotonic() - sent_s)
                self._acked.append(index)

    def _take(self) -> int | None:
        starts_s = max(self._due_s(self._next), time.monotonic())
        if self._next >= self._plan.requests_max or starts_s >= self._deadline_s:
            return None
        self._next += 1
        return self._next - 1

    def _due_s(self, index: int) -> float:
        rate = self._plan.rate_spans_s
        return self._started_s + (index * self._plan.spans_per_request / rate if rate else 0.0)

    async def _wait_until_due(self, index: int) -> None:
        due_s = self._due_s(index)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        self._behind_s = max(self._behind_s, time.monotonic() - due_s)

    async def _deliver(self, call: Any, body: bytes) -> bool:
        delay_s = RETRY_DELAY_S_MIN
        while True:
            try:
                response = await call(body, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                self._errors[error.code().name] += 1
                if not self._may_retry(error.code()):
                    return False
            else:
                return self._accept(response)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, RETRY_DELAY_S_MAX)
            self._retries += 1

    def _may_retry(self, code: grpc.StatusCode) -> bool:
        is_in_time = time.monotonic() < self._deadline_s + self._plan.grace_s
        return self._plan.retry and code in RETRYABLE and is_in_time

    def _accept(self, response: bytes) -> bool:
        if not response:
            return True
        rejected: int = ExportTraceServiceResponse.FromString(response).partial_success.rejected_spans
        self._rejected += rejected
        return rejected == 0

    def _result(self) -> LoadResult:
        size = self._plan.spans_per_request
        seconds = self._ended_s - self._started_s
        latencies_ms = np.array(self._latencies_s or [0.0]) * 1e3
        p50_ms, p99_ms = np.percentile(latencies_ms, (50, 99)).tolist()
        return LoadResult(
            requests=len(self._acked),
            spans=len(self._acked) * size,
            rejected_spans=self._rejected,
            retries=self._retries,
            abandoned=self._next - len(self._acked),
            errors=dict(self._errors),
            seconds=seconds,
            spans_s=len(self._acked) * size / seconds,
            ack_p50_ms=p50_ms,
            ack_p99_ms=p99_ms,
            ack_max_ms=float(latencies_ms.max()),
            behind_ms_max=self._behind_s * 1e3,
            acked=[
                (self._plan.first + a * size, self._plan.first + b * size) for a, b in ranges.from_numbers(self._acked)
            ],
            next_number=self._plan.first + self._next * size,
        )


def main() -> None:
    arguments = _arguments()
    hold = arguments.pop("hold")
    load = Load(Plan(**arguments))
    gc.freeze()
    print(json.dumps(asdict(asyncio.run(_run(load, hold=hold)))), flush=True)


async def _run(load: Load, *, hold: bool) -> LoadResult:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, load.stop)
    return await load.run(hold=hold)


def _hold() -> None:
    print(json.dumps({"ready": True}), flush=True)
    if not sys.stdin.readline():
        raise RuntimeError("the parent process is gone")


def _arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="host:port of the gateway's OTLP gRPC")
    parser.add_argument("--spans-per-request", type=int, default=512)
    parser.add_argument("--first", type=int, default=0, help="number of the first span")
    parser.add_argument("--requests", type=int, default=REQUESTS_MAX, dest="requests_max")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=0.0, dest="rate_spans_s", help="spans/s, 0 = closed loop")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--retry", action="store_true", help="repeat a refused request until it is acknowledged")
    parser.add_argument("--grace", type=float, default=30.0, dest="grace_s", help="seconds for retries after the end")
    parser.add_argument("--failing", choices=FAILING, default="some", help="which spans are errors")
    parser.add_argument("--hold", action="store_true", help="connect, print a line, start on a line on stdin")
    arguments = vars(parser.parse_args())
    if not (0 < arguments["seconds"] <= SECONDS_MAX and 0 < arguments["requests_max"] <= REQUESTS_MAX):
        parser.error(f"allowed are up to {REQUESTS_MAX} requests and {SECONDS_MAX:.0f} seconds")
    return arguments


if __name__ == "__main__":
    main()
