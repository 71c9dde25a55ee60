"""The sender over a real outbox: order, merging, retries, splits, and totals that add up. No test waits for a delay."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.errors import Refused, TooLarge, Unavailable
from otel_pipeline.exporters.sender import Batching, Sender
from otel_pipeline.limits import ENTRIES_MERGED_MAX, RETRY_ASKED_S_MAX
from otel_pipeline.outbox import Outbox
from otel_pipeline.outbox_state import Addition
from otel_pipeline.settings import Retry
from otel_pipeline.stats import Stats
from otel_pipeline.wire.signal import Signal
from tests.support.fakes import RememberingExporter
from tests.support.otlp import logs, span_names, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1024 * 1024
PLAIN = Retry(initial_interval=5.0, multiplier=2.0, max_interval=30.0, randomization_factor=0.5)
SIGNALS = {"traces": Signal.TRACES, "logs": Signal.LOGS}


class Clock:
    """Moves when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Totals:
    """What the outbox says of one exporter."""

    exported: int
    dropped: dict[str, int]
    queued: int


class Bench:
    """An outbox with a traces and a logs stream and senders without a thread, turned by the test."""

    def __init__(self, directory: Path, *exporters: str) -> None:
        self.clock = Clock()
        self.stats = Stats()
        self.stretches: list[tuple[float, float]] = []
        streams = {name: (signal.word, exporters) for name, signal in SIGNALS.items()}
        self.outbox = Outbox(directory, streams, bytes_max=64 * MIB, sync="off", clock=self.clock)

    def sender(
        self,
        exporter: RememberingExporter,
        name: str = "sink",
        batching: Batching = Batching(),  # noqa: B008 - it is frozen
        retry: Retry = PLAIN,
        pipelines: tuple[str, ...] = ("traces",),
    ) -> Sender:
        clock = self.clock
        one = Sender(name, exporter, self.outbox, self.stats, clock=clock, wall_clock=clock, jitter=self._jitter)
        for pipeline in pipelines:
            one.add(pipeline, SIGNALS[pipeline], batching, retry)
        return one

    def _jitter(self, low: float, high: float) -> float:
        self.stretches.append((low, high))
        return 1.0

    def append(self, *batches: list[str], pipeline: str = "traces") -> None:
        make: Callable[[list[str]], bytes] = traces if pipeline == "traces" else logs
        self.outbox.append([Addition(pipeline, make(names), len(names), len(names), {}, {}) for names in batches])

    def totals(self, name: str = "sink", pipeline: str = "traces") -> Totals:
        state = next(one for one in self.outbox.states() if one.pipeline == pipeline)
        cursor = next(one for one in state.cursors if one.exporter == name)
        assert state.appended == cursor.exported + sum(cursor.dropped.values()) + cursor.queued_items
        return Totals(cursor.exported, cursor.dropped, cursor.queued_items)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.stats.registry.get_sample_value(name, {"exporter": "sink", **labels})


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with ExitStack() as stack:

        def build(*exporters: str) -> Bench:
            bench = Bench(tmp_path / "outbox", *(exporters or ("sink",)))
            stack.callback(bench.outbox.close)
            return bench

        yield build


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


def turned(sender: Sender, times_max: int = 100) -> int:
    """Turn as long as there is something to do; how often there was."""
    for count in range(times_max):
        if not sender.turn():
            return count
    raise AssertionError("it never ends")


def names(exporter: RememberingExporter) -> list[list[str]]:
    return [span_names(request) for signal, request in exporter.delivered if signal is Signal.TRACES]


# -- order and merging -------------------------------------------------------------------------------------------------


def test_entries_are_delivered_in_order_and_merged(bench: Bench) -> None:
    exporter = RememberingExporter()
    bench.append(["a", "b"], ["c"])
    bench.append(["d"])
    turned(bench.sender(exporter))
    assert names(exporter) == [["a", "b", "c", "d"]]
    assert bench.totals() == Totals(4, {}, 0)
    assert bench.metric("otelcol_exporter_sent_spans_total") == 4
    assert bench.metric("otel_pipeline_exporter_requests_total", outcome="ok") == 1
    assert bench.metric("otelcol_exporter_in_flight_requests") == 0


def test_requests_are_merged_up_to_the_exporters_size(bench: Bench) -> None:
    exporter = RememberingExporter(request_bytes_max=2 * len(traces(["a"])))
    bench.append(["a"], ["b"], ["c"], ["d"], ["e"])
    turned(bench.sender(exporter))
    assert names(exporter) == [["a", "b"], ["c", "d"], ["e"]]


def test_the_number_of_merged_entries_is_bounded(bench: Bench) -> None:
    exporter = RememberingExporter()
    bench.append(*([str(number)] for number in range(ENTRIES_MERGED_MAX + 1)))
    turned(bench.sender(exporter))
    assert [len(batch) for batch in names(exporter)] == [ENTRIES_MERGED_MAX, 1]


def test_requests_are_merged_up_to_the_configured_items(bench: Bench) -> None:
    exporter = RememberingExporter()
    bench.append(*([str(number)] for number in range(10)))
    turned(bench.sender(exporter, batching=Batching(items_max=4)))
    assert names(exporter) == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9"]]


def test_an_entry_with_more_than_the_configured_items_is_split(bench: Bench) -> None:
    exporter = RememberingExporter()
    bench.append(["a", "b", "c", "d", "e"])
    turned(bench.sender(exporter, batching=Batching(items_max=2)))
    assert names(exporter) == [["a", "b"], ["c"], ["d", "e"]]
    assert bench.totals() == Totals(5, {}, 0)


def test_an_entry_far_above_the_exporters_size_is_split_before_it_is_sent(bench: Bench) -> None:
    exporter = RememberingExporter(request_bytes_max=len(traces(["a"])))
    bench.append(["a"] * 8)
    turned(bench.sender(exporter))
    assert sum(map(len, names(exporter))) == 8
    assert all(len(request) <= 2 * exporter.request_bytes_max for _, request in exporter.delivered)
    assert bench.metric("otel_pipeline_exporter_requests_total", outcome="too_large") == 0


def test_streams_of_one_exporter_take_turns(bench: Bench) -> None:
    exporter = RememberingExporter()
    bench.append(["span"])
    bench.append(["record"], pipeline="logs")
    turned(bench.sender(exporter, pipelines=("traces", "logs")))
    assert [signal for signal, _ in exporter.delivered] == [Signal.TRACES, Signal.LOGS]


# -- later -------------------------------------------------------------------------------------------------------------


def test_X4_waits_grow_within_the_jitters_bounds(bench: Bench) -> None:
    exporter = RememberingExporter(*[Unavailable("down")] * 5)
    sender = bench.sender(exporter)
    bench.append(["a"])
    turned(sender)
    for attempts, wait_s in enumerate((5.0, 10.0, 20.0, 30.0, 30.0), 1):
        bench.clock.now_s += wait_s - 0.5
        turned(sender)
        assert exporter.attempts == attempts
        bench.clock.now_s += 0.5
        turned(sender)
    assert names(exporter) == [["a"]]
    assert bench.stretches == [(0.5, 1.5)] * 5
    assert bench.metric("otel_pipeline_exporter_requests_total", outcome="retry") == 5


@pytest.mark.parametrize(
    ("asked_s", "wait_s"), [(60.0, 60.0), (1.0, 5.0), (-3.0, 5.0), (1e12, RETRY_ASKED_S_MAX), (None, 5.0)]
)
def test_X4_the_servers_delay_counts_if_it_is_longer(bench: Bench, asked_s: float | None, wait_s: float) -> None:
    exporter = RememberingExporter(Unavailable("down", asked_s))
    sender = bench.sender(exporter)
    bench.append(["a"])
    turned(sender)
    bench.clock.now_s += wait_s - 0.01
    turned(sender)
    assert exporter.attempts == 1
    bench.clock.now_s += 0.01
    turned(sender)
    assert names(exporter) == [["a"]]


def test_after_a_success_the_next_failure_waits_shortly_again(bench: Bench) -> None:
    exporter = RememberingExporter(Unavailable("down"), Unavailable("down"), 0, Unavailable("down"))
    sender = bench.sender(exporter)
    bench.append(["a"])
    for wait_s in (0.0, 5.0, 10.0):
        bench.clock.now_s += wait_s
        turned(sender)
    bench.append(["b"])
    turned(sender)
    bench.clock.now_s += 5.0
    turned(sender)
    assert names(exporter) == [["a"], ["b"]]


def test_a_stream_that_waits_holds_no_other_stream_back(bench: Bench) -> None:
    exporter = RememberingExporter(Unavailable("no traces now", 3_000.0))
    sender = bench.sender(exporter, pipelines=("traces", "logs"))
    bench.append(["span"])
    bench.append(["record"], pipeline="logs")
    turned(sender)
    assert [signal for signal, _ in exporter.delivered] == [Signal.LOGS]
    assert bench.totals() == Totals(0, {}, 1)


def test_X5_a_dead_exporter_neither_blocks_nor_duplicates_another(make: Callable[..., Bench]) -> None:
    bench = make("dead", "alive")
    dead, alive = RememberingExporter(*[Unavailable("down")] * 9), RememberingExporter()
    senders = [bench.sender(dead, "dead"), bench.sender(alive, "alive")]
    for name in "abc":
        bench.append([name])
        for sender in senders:
            turned(sender)
    assert names(alive) == [["a"], ["b"], ["c"]]
    assert bench.totals("alive") == Totals(3, {}, 0)
    assert bench.totals("dead") == Totals(0, {}, 3)


def test_without_retries_a_batch_is_dropped_and_counted(bench: Bench) -> None:
    exporter = RememberingExporter(Unavailable("down"))
    sender = bench.sender(exporter, retry=Retry(enabled=False))
    bench.append(["a", "b"])
    turned(sender)
    bench.append(["c"])
    turned(sender)
    assert names(exporter) == [["c"]]
    assert bench.totals() == Totals(1, {"retry_disabled": 2}, 0)
    assert bench.metric("otelcol_exporter_send_failed_spans_total") == 2


def test_without_retries_what_was_taken_before_is_not_dropped_again(bench: Bench) -> None:
    exporter = RememberingExporter(Refused("together"), 0, Unavailable("down"))
    bench.append(["a", "b"], ["c"])
    turned(bench.sender(exporter, retry=Retry(enabled=False)))
    assert names(exporter) == [["a", "b"]]
    assert bench.totals() == Totals(2, {"retry_disabled": 1}, 0)


def test_an_exception_in_the_exporter_keeps_the_batch(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    exporter = RememberingExporter(ZeroDivisionError())
    sender = bench.sender(exporter)
    bench.append(["a"])
    turned(sender)
    assert bench.totals() == Totals(0, {}, 1)
    assert "ZeroDivisionError" in caplog.text
    bench.clock.now_s += 5.0
    turned(sender)
    assert names(exporter) == [["a"]]


def test_an_outbox_that_cannot_be_read_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = RememberingExporter()
    sender = bench.sender(exporter)
    bench.append(["a"])
    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, "read", lambda *_: 1 / 0)
        assert turned(sender) == 0
    assert "the batch stays in the outbox" in caplog.text
    bench.clock.now_s += 5.0
    turned(sender)
    assert names(exporter) == [["a"]]


# -- never, or in smaller pieces ---------------------------------------------------------------------------------------


def refusing(error: type[Refused], bad: Callable[[list[str]], bool]) -> RememberingExporter:
    exporter = RememberingExporter()

    def check(request: bytes) -> None:
        if bad(span_names(request)):
            raise error("not that")

    exporter.check = check
    return exporter


def test_one_bad_entry_among_merged_ones_costs_no_other(bench: Bench) -> None:
    exporter = refusing(Refused, lambda batch: "bad" in batch)
    bench.append(["a"], ["b"], ["bad", "mate"], ["c"], ["d"])
    turned(bench.sender(exporter))
    assert list(chain.from_iterable(names(exporter))) == ["a", "b", "c", "d"]
    assert bench.totals() == Totals(4, {"refused_by_backend": 2}, 0)
    assert bench.metric("otelcol_exporter_send_failed_spans_total") == 2
    assert bench.metric("otelcol_exporter_sent_spans_total") == 4


def test_when_the_second_half_must_wait_the_first_is_settled(bench: Bench) -> None:
    exporter = RememberingExporter(Refused("together"), 0, Unavailable("down"))
    sender = bench.sender(exporter)
    bench.append(["a"], ["b"])
    turned(sender)
    assert bench.totals() == Totals(1, {}, 1)
    bench.clock.now_s += 5.0
    turned(sender)
    assert names(exporter) == [["a"], ["b"]]


def test_what_is_too_large_is_split_by_rows(bench: Bench) -> None:
    exporter = refusing(TooLarge, lambda batch: len(batch) > 2)
    bench.append(["a", "b", "c", "d", "e"])
    turned(bench.sender(exporter))
    assert names(exporter) == [["a", "b"], ["c"], ["d", "e"]]
    assert bench.totals() == Totals(5, {}, 0)
    assert bench.metric("otel_pipeline_exporter_requests_total", outcome="too_large") == 2


def test_a_single_row_that_is_too_large_is_dropped_alone(bench: Bench) -> None:
    exporter = refusing(TooLarge, lambda batch: "huge" in batch)
    bench.append(["a", "b", "huge"], ["c"])
    turned(bench.sender(exporter))
    assert list(chain.from_iterable(names(exporter))) == ["a", "b", "c"]
    assert bench.totals() == Totals(3, {"too_large": 1}, 0)


def test_parts_are_lost_under_their_own_reasons(bench: Bench) -> None:
    exporter = RememberingExporter(TooLarge("all"), Refused("half"), 1)
    bench.append(["a", "b", "c", "d"])
    turned(bench.sender(exporter))
    assert bench.totals() == Totals(1, {"refused_by_backend": 2, "rejected_by_backend": 1}, 0)


@pytest.mark.parametrize(("answer", "lost"), [(2, 2), (99, 3), (-1, 0)])
@pytest.mark.parametrize("entries", [1, 3])
def test_X3_a_partial_success_is_counted_and_not_sent_again(bench: Bench, answer: int, lost: int, entries: int) -> None:
    exporter = RememberingExporter(answer)
    bench.append(*([["a", "b", "c"]] if entries == 1 else [["a"], ["b"], ["c"]]))
    turned(bench.sender(exporter))
    assert exporter.attempts == 1
    assert bench.totals() == Totals(3 - lost, {"rejected_by_backend": lost} if lost else {}, 0)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    said=st.lists(st.sampled_from(["ok", "some", "refused", "too_large", "later", "broken"]), max_size=25),
    retry=st.booleans(),
)
def test_the_totals_add_up_whatever_the_backend_says(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], said: list[str], *, retry: bool
) -> None:
    bench = Bench(tmp_path_factory.mktemp("sender"), "sink")
    answers: dict[str, Any] = {
        "ok": 0,
        "some": 1,
        "refused": Refused("no"),
        "too_large": TooLarge("no"),
        "later": Unavailable("no"),
        "broken": ZeroDivisionError(),
    }
    exporter = RememberingExporter(*(answers[one] for one in said))
    sender = bench.sender(exporter, retry=Retry(enabled=retry))
    bench.append(*([f"{entry}.{row}" for row in range(size)] for entry, size in enumerate(sizes)))
    for _ in range(200):
        turned(sender)
        totals = bench.totals()
        if not totals.queued:
            break
        bench.clock.now_s += 60.0
    assert totals.queued == 0
    assert totals.exported + sum(totals.dropped.values()) == sum(sizes)
    lost = bench.metric("otelcol_exporter_send_failed_spans_total") or 0
    assert (bench.metric("otelcol_exporter_sent_spans_total"), lost) == (
        totals.exported,
        sum(totals.dropped.values()),
    )
    bench.outbox.close()


# -- the `batch` settings ----------------------------------------------------------------------------------------------

GATHER = Batching(items_min=4, wait_s=10.0)


def test_a_small_batch_waits_until_its_time_is_up(bench: Bench) -> None:
    exporter = RememberingExporter()
    sender = bench.sender(exporter, batching=GATHER)
    bench.append(["a"])
    bench.clock.now_s += 9.0
    bench.append(["b"])
    assert turned(sender) == 0
    bench.clock.now_s += 1.0
    assert turned(sender) == 1
    assert names(exporter) == [["a", "b"]]


def test_a_batch_that_is_large_enough_goes_at_once(bench: Bench) -> None:
    exporter = RememberingExporter()
    sender = bench.sender(exporter, batching=GATHER)
    bench.append(["a", "b", "c"])
    assert turned(sender) == 0
    bench.append(["d"])
    assert turned(sender) == 1
    assert names(exporter) == [["a", "b", "c", "d"]]


def test_a_request_that_is_full_does_not_wait_for_more_items(bench: Bench) -> None:
    exporter = RememberingExporter(request_bytes_max=len(traces(["a"])))
    sender = bench.sender(exporter, batching=GATHER)
    bench.append(["a"], ["b"])
    assert turned(sender) == 1
    assert names(exporter) == [["a"]]


def test_a_request_with_all_the_items_allowed_does_not_wait(bench: Bench) -> None:
    exporter = RememberingExporter()
    sender = bench.sender(exporter, batching=Batching(items_min=4, wait_s=10.0, items_max=4))
    bench.append(["a", "b", "c"], ["d", "e"])
    assert turned(sender) == 1
    assert names(exporter) == [["a", "b", "c"]]


def test_an_entry_that_arrives_while_the_sender_decides_is_gathered_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = RememberingExporter()
    sender = bench.sender(exporter, batching=GATHER)
    bench.append(["a"])
    read = bench.outbox.read

    def read_then_append(*which: Any) -> Any:
        chunk = read(*which)
        bench.append(["b"])
        return chunk

    with monkeypatch.context() as patch:
        patch.setattr(bench.outbox, "read", read_then_append)
        assert not sender.turn()
    bench.append(["c"])
    assert turned(sender) == 1
    assert names(exporter) == [["a", "b", "b", "c"]]


def test_without_a_time_nothing_waits(bench: Bench) -> None:
    exporter = RememberingExporter()
    bench.append(["a"])
    turned(bench.sender(exporter, batching=Batching(items_min=100)))
    assert names(exporter) == [["a"]]


# -- the thread --------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(bench: Bench) -> Iterator[Callable[..., Sender]]:
    """Senders with a real clock and thread."""
    started: list[Sender] = []

    def start(exporter: RememberingExporter, **more: Any) -> Sender:
        sender = Sender("sink", exporter, bench.outbox, bench.stats)
        sender.add("traces", Signal.TRACES, more.get("batching", Batching()), more.get("retry", PLAIN))
        sender.start()
        started.append(sender)
        return sender

    yield start
    for sender in started:
        sender.stop(0.0)


SOON = float("inf")
"""A deadline that never comes: what must end at once does so without it."""


def test_an_arrival_wakes_the_sender(bench: Bench, running: Callable[..., Sender]) -> None:
    exporter = RememberingExporter()
    running(exporter)
    for name in "abc":
        bench.append([name])
        assert exporter.wait_for(lambda one: [name] in names(one))  # noqa: B023 - it is over before the next name


def test_a_short_wait_ends_by_itself(bench: Bench, running: Callable[..., Sender]) -> None:
    exporter = RememberingExporter(Unavailable("down"))
    running(exporter, retry=Retry(initial_interval=0.01, max_interval=0.01))
    bench.append(["a"])
    assert exporter.wait_for(lambda one: len(one.delivered) == 1)


def test_arrivals_that_make_a_batch_large_enough_wake_the_sender(bench: Bench, running: Callable[..., Sender]) -> None:
    bench.clock.now_s = 1e12  # entries are from the future: their time is never up
    exporter = RememberingExporter()
    running(exporter, batching=Batching(items_min=20, wait_s=3600.0))
    for number in range(20):
        bench.append([str(number)])
    assert exporter.wait_for(lambda one: len(one.delivered) == 1)
    assert names(exporter) == [[str(number) for number in range(20)]]


def test_stop_drains_then_closes(bench: Bench, running: Callable[..., Sender]) -> None:
    exporter = RememberingExporter(request_bytes_max=1)
    bench.append(*([str(number)] for number in range(50)))
    sender = running(exporter)
    sender.stop(SOON)
    assert len(exporter.delivered) == 50
    assert exporter.closed
    sender.stop(SOON)


def test_stop_sends_what_was_gathered(bench: Bench, running: Callable[..., Sender]) -> None:
    bench.clock.now_s = 1e12
    exporter = RememberingExporter()
    sender = running(exporter, batching=Batching(items_min=100, wait_s=3600.0))
    bench.append(["a"])
    sender.stop(SOON)
    assert names(exporter) == [["a"]]


def test_stop_wakes_a_sender_that_has_nothing_to_do(running: Callable[..., Sender]) -> None:
    exporter = RememberingExporter()
    sender = running(exporter)
    ended = threading.Thread(target=sender.stop, args=(SOON,))
    ended.start()
    ended.join(4.0)
    assert not ended.is_alive()


def test_stop_does_not_wait_for_a_backend_that_is_down(bench: Bench, running: Callable[..., Sender]) -> None:
    exporter = RememberingExporter(*[Unavailable("down", 3_000.0)] * 3)
    sender = running(exporter)
    bench.append(["a"])
    assert exporter.wait_for(lambda one: one.attempts == 1)
    sender.stop(SOON)
    assert bench.totals() == Totals(0, {}, 1)


def test_stop_at_its_deadline_leaves_the_rest(bench: Bench, running: Callable[..., Sender]) -> None:
    exporter = RememberingExporter(request_bytes_max=1)
    inside, go_on = threading.Event(), threading.Event()

    def check(_: bytes) -> None:
        inside.set()
        assert go_on.wait(20.0)

    exporter.check = check
    bench.append(*([str(number)] for number in range(10)))
    sender = running(exporter)
    assert inside.wait(20.0)
    stopping = threading.Thread(target=sender.stop, args=(0.0,))
    stopping.start()
    go_on.set()
    stopping.join(20.0)
    assert exporter.closed
    totals = bench.totals()
    assert (totals.exported, totals.queued) == (len(exporter.delivered), 10 - len(exporter.delivered))
    assert totals.queued >= 8


class Hanging(RememberingExporter):
    """Its backend never answers; closing cuts the call off."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.cut_off = threading.Event(), threading.Event()

    def deliver(self, *_: Any) -> int:
        self.inside.set()
        assert self.cut_off.wait(20.0)
        raise Unavailable("cut off")

    def close(self) -> None:
        super().close()
        self.cut_off.set()


@pytest.mark.parametrize("retry", [PLAIN, Retry(enabled=False)])
def test_stop_cuts_off_a_call_that_outlives_the_deadline_and_drops_nothing(
    bench: Bench, running: Callable[..., Sender], retry: Retry
) -> None:
    exporter = Hanging()
    sender = running(exporter, retry=retry)
    bench.append(["a"])
    assert exporter.inside.wait(20.0)
    sender.stop(0.0)
    assert exporter.closed
    assert bench.totals() == Totals(0, {}, 1)


def test_stop_without_a_start_closes_the_exporter(bench: Bench) -> None:
    exporter = RememberingExporter()
    bench.sender(exporter).stop(0.0)
    assert exporter.closed


def test_what_is_left_is_delivered_after_the_next_start(bench: Bench, running: Callable[..., Sender]) -> None:
    bench.append(["a"], ["b"])
    first = RememberingExporter(0, Unavailable("down", 3_000.0), request_bytes_max=1)
    running(first)
    assert first.wait_for(lambda one: one.attempts == 2)
    second = RememberingExporter()
    turned(bench.sender(second))
    assert (names(first), names(second)) == ([["a"]], [["b"]])
