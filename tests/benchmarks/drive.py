"""The sink and the load generator as child processes, seen from a runner."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.benchmarks import ranges
from tests.benchmarks.load import CALL_TIMEOUT_S, LoadResult, Plan
from tests.benchmarks.process import POLL_S, Child, python_module
from tests.benchmarks.ranges import Ranges

START_TIMEOUT_S = 30.0
RESULT_MARGIN_S = 10.0
DRAIN_TIMEOUT_S = 60.0
DRAIN_STALL_S = 15.0  # rotel waits 5 s before its first retry, so silence has to last longer than that.
_HTTP_TIMEOUT_S = 10.0
_OPTIONS = {"requests_max": "requests", "rate_spans_s": "rate", "grace_s": "grace"}


@dataclass(frozen=True, slots=True)
class SinkStats:
    """What the sink has received so far."""

    requests: int
    body_bytes: int
    spans: int
    duplicates: int
    foreign: int
    first_at_s: float
    last_at_s: float


class SinkProcess:
    """The backend; its ports stay the same while gateways in front of it come and go."""

    def __init__(self, log: Path, *, verify: bool = False) -> None:
        command = python_module("tests.benchmarks.sink", *(["--verify"] if verify else []))
        self._child = Child(command, log, talks=True)
        try:
            ports = self._child.line(START_TIMEOUT_S)
        except BaseException:
            self._child.stop()
            raise
        self.grpc_port: int = ports["grpc"]
        self._url = f"http://127.0.0.1:{ports['http']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.stop()

    def stats(self) -> SinkStats:
        return SinkStats(**self._get("/stats"))

    def seen(self) -> Ranges:
        """The span numbers that arrived; only with verify."""
        return [(start, stop) for start, stop in self._get("/seen")]

    def wait_for(self, spans: int) -> bool:
        """Wait until so many spans arrived; False if they stopped coming before."""
        return _count_down(lambda: spans - self.stats().spans) <= 0

    def wait_for_ranges(self, numbers: Ranges) -> Ranges:
        """Wait until these spans arrived; returns those that did not, once they stopped coming."""
        _count_down(lambda: ranges.size(ranges.difference(numbers, self.seen())))
        return ranges.difference(numbers, self.seen())

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=_HTTP_TIMEOUT_S) as response:  # noqa: S310 - our own sink
            return json.load(response)


class LoadProcess:
    """One run of the load generator: connected and waiting after the constructor, sending after go()."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self._plan = plan
        self._child = Child(python_module("tests.benchmarks.load", "--hold", *_arguments(plan)), log, talks=True)
        try:
            self._child.line(START_TIMEOUT_S)
        except BaseException:
            self._child.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.stop()

    def go(self) -> None:
        self._child.say("go")

    def finish(self) -> LoadResult:
        """The result before the plan is done: nothing new is sent, what is outstanding is brought home."""
        self._child.terminate()
        return self._result(self._plan.grace_s)

    def result(self) -> LoadResult:
        """The result, once the plan is done."""
        return self._result(self._plan.seconds + self._plan.grace_s)

    def _result(self, timeout_s: float) -> LoadResult:
        # A last call may begin at the end of the grace time and run into its own timeout.
        fields = self._child.line(timeout_s + CALL_TIMEOUT_S + RESULT_MARGIN_S)
        fields["acked"] = [(start, stop) for start, stop in fields["acked"]]
        return LoadResult(**fields)


def run_load(plan: Plan, log: Path) -> LoadResult:
    with LoadProcess(plan, log) as load:
        load.go()
        return load.result()


def _count_down(left: Callable[[], int]) -> int:
    """Poll until nothing is left; returns what is left when the count stands still or time is up."""
    deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
    progress_s = time.monotonic()
    count = left()
    while count > 0 and time.monotonic() < min(deadline_s, progress_s + DRAIN_STALL_S):
        time.sleep(POLL_S)
        before, count = count, left()
        if count != before:
            progress_s = time.monotonic()
    return count


def _arguments(plan: Plan) -> list[str]:
    arguments = []
    for field, value in asdict(plan).items():
        name = "--" + _OPTIONS.get(field, field).replace("_", "-")
        if value is True:
            arguments.append(name)
        elif value is not False:
            arguments += [name, str(value)]
    return arguments
