"""Silence for our own commands."""

from __future__ import annotations

from opentelemetry import context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_pipeline.worker.quiet import Silence, silenced


def test_official_instrumentations_are_silent_inside_of_it_only() -> None:
    before = context.get_current()
    with Silence():
        assert not is_instrumentation_enabled()
        with Silence():
            assert not is_instrumentation_enabled()
        assert not is_instrumentation_enabled()
    assert is_instrumentation_enabled()
    assert context.get_current() == before


def test_what_else_the_context_holds_stays() -> None:
    within = silenced(context.Context({"held": 1}))
    assert within["held"] == 1


def test_a_silence_whose_end_never_ran_ends_with_its_object() -> None:
    silence = Silence()
    silence.__enter__()
    assert not is_instrumentation_enabled()
    del silence
    assert is_instrumentation_enabled()
