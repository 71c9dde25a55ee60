"""The correlation id: in from headers, on as baggage, out again unless the program writes its own."""

from __future__ import annotations

import pytest
from opentelemetry import baggage, propagate
from opentelemetry.context import Context

from otel_pipeline.worker import names
from otel_pipeline.worker.process import correlation
from otel_pipeline.worker.process.correlation import CorrelationPropagator

OURS = CorrelationPropagator()


def known(carrier: dict[str, str], within: Context | None = None) -> object:
    return baggage.get_baggage(names.CORRELATION_ID, OURS.extract(carrier, within))


def sent(carrier: dict[str, str], value: str = "c-1") -> dict[str, str]:
    OURS.inject(carrier, baggage.set_baggage(names.CORRELATION_ID, value, Context()))
    return carrier


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-correlation-id": "c-1"}, "c-1"),
        ({"x-request-id": "r-1"}, "r-1"),
        ({"x-correlation-id": "c-1", "x-request-id": "r-1"}, "c-1"),
        ({}, None),
        ({"x-correlation-id": " "}, None),
        ({"x-correlation-id": "x" * 129}, None),
        ({"x-correlation-id": "a\nb"}, None),
    ],
)
def test_it_is_read_from_headers(headers: dict[str, str], expected: str | None) -> None:
    assert known(headers) == expected


def test_a_request_id_does_not_replace_one_that_came_as_baggage() -> None:
    within = baggage.set_baggage(names.CORRELATION_ID, "c-1", Context())
    assert known({"x-request-id": "r-1"}, within) == "c-1"


def test_it_is_written() -> None:
    assert sent({}) == {"x-correlation-id": "c-1"}


def test_what_the_program_writes_itself_stays() -> None:
    assert sent({"X-Correlation-ID": "own"}) == {"X-Correlation-ID": "own"}


def test_without_one_nothing_is_written() -> None:
    carrier: dict[str, str] = {}
    OURS.inject(carrier, Context())
    assert carrier == {}


def test_a_carrier_of_another_kind_raises_nothing() -> None:
    assert OURS.extract(object(), None) == Context()
    OURS.inject(None, baggage.set_baggage(names.CORRELATION_ID, "c-1", Context()))


def test_it_is_added_to_the_propagators_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = propagate.get_global_textmap()
    monkeypatch.setattr(propagate, "propagator", before)
    correlation.install()
    correlation.install()
    carrier: dict[str, str] = {}
    propagate.inject(carrier, baggage.set_baggage(names.CORRELATION_ID, "c-1", Context()))
    assert carrier["x-correlation-id"] == "c-1"
    assert "baggage" in carrier
    propagate.set_global_textmap(before)


def test_without_propagators_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    before = propagate.get_global_textmap()
    monkeypatch.setenv("OTEL_PROPAGATORS", "none")
    correlation.install()
    assert propagate.get_global_textmap() is before
