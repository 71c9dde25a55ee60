"""The debug exporter says what passes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import pytest

from otel_pipeline.errors import Refused
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exporters.debug import LINES_MAX, DebugExporter
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.signal import Signal
from tests.support.net import context
from tests.support.otlp import logs, metrics, traces

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def host() -> Iterator[EventLoop]:
    one = EventLoop()
    yield one
    one.stop()


def said(
    caplog: pytest.LogCaptureFixture,
    host: EventLoop,
    verbosity: Literal["basic", "normal", "detailed"],
    request: bytes,
    signal: Signal = Signal.TRACES,
) -> str:
    caplog.set_level(logging.INFO)
    exporter = DebugExporter(DebugExporter.Config(verbosity=verbosity), context(host))
    assert exporter.deliver(signal, request) == 0
    exporter.close()
    return caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("signal", "request_bytes", "text"),
    [
        (Signal.TRACES, traces(["a", "b"]), "otlp: 2 spans, 148 bytes"),
        (Signal.METRICS, metrics({"a": 1.0, "b": 2.0}), "otlp: 2 metric_points, "),
        (Signal.LOGS, logs(["one"]), "otlp: 1 log_records, "),
    ],
)
def test_basic_says_how_many(
    caplog: pytest.LogCaptureFixture, host: EventLoop, signal: Signal, request_bytes: bytes, text: str
) -> None:
    assert said(caplog, host, "basic", request_bytes, signal).startswith(text)


def test_normal_names_some_of_them(caplog: pytest.LogCaptureFixture, host: EventLoop) -> None:
    lines = said(caplog, host, "normal", traces(f"job {number}" for number in range(LINES_MAX + 5))).splitlines()
    assert lines[0].startswith(f"otlp: {LINES_MAX + 5} spans, ")
    assert lines[1:] == [f"  job {number}" for number in range(LINES_MAX)]


def test_detailed_has_everything_as_otlp_json(caplog: pytest.LogCaptureFixture, host: EventLoop) -> None:
    text = said(caplog, host, "detailed", traces(["a"]))
    assert text.endswith(otlp_json.encode(Signal.TRACES, traces(["a"])))


def test_a_batch_that_cannot_be_written_as_json_is_refused_not_tried_for_ever(host: EventLoop) -> None:
    exporter = DebugExporter(DebugExporter.Config(verbosity="detailed"), context(host))
    with pytest.raises(Refused, match="cannot be written as JSON"):
        exporter.deliver(Signal.TRACES, b"\x0a\xff")
