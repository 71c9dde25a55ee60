"""What is added to the SDK's providers."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.process import providers, resource
from otel_pipeline.worker.process.draining import Unsent


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "attributes", lambda: {"service.name": "found", "k8s.pod.name": "pod", "a": 1})
    monkeypatch.setattr(resource, "service_name", lambda: None)


def resource_of(provider: Any) -> dict[str, Any]:
    providers._prepare_resource(provider)
    return dict(providers._attributes(provider) or {})


@pytest.mark.parametrize("kind", [TracerProvider, MeterProvider, LoggerProvider])
def test_what_was_found_is_on_the_resource_of_every_provider(kind: Any) -> None:
    found = resource_of(kind(resource=Resource({"a": 2}), shutdown_on_exit=False))
    assert found == {"service.name": "found", "k8s.pod.name": "pod", "a": 2}


@pytest.mark.parametrize(
    ("given", "expected"), [("mine", "mine"), ("unknown_service", "found"), ("unknown_service:python", "found")]
)
def test_a_service_that_has_a_name_keeps_it(given: str, expected: str) -> None:
    provider = TracerProvider(resource=Resource({"service.name": given}), shutdown_on_exit=False)
    assert resource_of(provider)["service.name"] == expected


def test_the_role_of_a_comfyui_server_goes_before_the_name_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "service_name", lambda: "comfyui")
    provider = TracerProvider(resource=Resource({"service.name": "worker"}), shutdown_on_exit=False)
    assert resource_of(provider)["service.name"] == "comfyui"


def test_a_resource_that_cannot_be_read_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise RuntimeError("injected")

    monkeypatch.setattr(resource, "attributes", fail)
    assert resource_of(TracerProvider(resource=Resource({"a": 1}), shutdown_on_exit=False)) == {"a": 1}


def test_a_span_that_ends_is_something_to_flush() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    providers._prepare_spans(provider)
    Unsent.since_flush = False
    span = provider.get_tracer("t").start_span("s")
    assert not Unsent.since_flush
    span.end()
    assert Unsent.since_flush


def test_the_api_alone_is_left_as_it_is() -> None:
    before = failures()
    for prepare in (providers._prepare_spans, providers._prepare_logs, providers._prepare_resource):
        prepare(object())
    assert failures() == before


def failures() -> int:
    return sum(each.failures for name, each in HOOKS.items() if name.startswith("providers."))
