"""The probes over HTTP."""

from __future__ import annotations

import http.client
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline.event_loop import EventLoop
from otel_pipeline.extensions.health_check import HealthCheck
from otel_pipeline.health import Health, application
from tests.support.net import free_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def host() -> Iterator[EventLoop]:
    one = EventLoop()
    one.start()
    yield one
    one.stop()


@pytest.fixture
def probe(host: EventLoop) -> Callable[..., tuple[int, Any]]:
    """Serve a health and ask one of its paths."""
    endpoints: dict[int, str] = {}

    def ask(health: Health, path: str, configured: str = "/") -> tuple[int, Any]:
        if id(health) not in endpoints:
            endpoints[id(health)] = free_endpoint()
            host.serve(application(health, configured), endpoints[id(health)])
        connection = http.client.HTTPConnection(endpoints[id(health)], timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            return response.status, json.loads(body) if response.status != 404 else None
        finally:
            connection.close()

    return ask


def test_livez_is_200_in_every_state(probe: Callable[..., tuple[int, Any]]) -> None:
    health = Health()
    assert probe(health, "/livez") == (200, {"status": "alive"})
    for change in (health.ready, health.stopping):
        change()
        assert probe(health, "/livez") == (200, {"status": "alive"})


@pytest.mark.parametrize("path", ["/readyz", "/"])
def test_readiness_follows_the_state(probe: Callable[..., tuple[int, Any]], path: str) -> None:
    health = Health()
    assert probe(health, path) == (503, {"status": "starting", "components": {}})
    health.ready()
    assert probe(health, path) == (200, {"status": "ready", "components": {}})
    health.stopping()
    assert probe(health, path) == (503, {"status": "stopping", "components": {}})


def test_a_part_in_trouble_is_not_ready_and_says_why(probe: Callable[..., tuple[int, Any]]) -> None:
    health = Health()
    troubles = ["full"]
    health.watch("outbox", lambda: troubles[0])
    health.watch("kernel", lambda: "", "compiled")
    health.ready()
    parts = {"outbox": "full", "kernel": "compiled"}
    assert probe(health, "/readyz") == (503, {"status": "ready", "components": parts})
    troubles[0] = ""
    parts["outbox"] = "ok"
    assert probe(health, "/readyz") == (200, {"status": "ready", "components": parts})


def test_a_part_is_asked_once_a_probe_so_that_answer_and_status_agree() -> None:
    health = Health()
    answers = ["", "trouble"]
    health.watch("flapping", lambda: answers.pop(0))
    health.ready()
    assert health.report() == (True, {"status": "ready", "components": {"flapping": "ok"}})
    assert health.report() == (False, {"status": "ready", "components": {"flapping": "trouble"}})


@pytest.mark.parametrize("configured", ["/status", "/readyz"])
def test_the_path_can_be_configured(probe: Callable[..., tuple[int, Any]], configured: str) -> None:
    health = Health()
    health.ready()
    assert HealthCheck.Config(path=configured).path == configured
    assert probe(health, configured, configured)[0] == 200
    assert probe(health, "/readyz", configured)[0] == 200
    assert probe(health, "/", configured)[0] == 404


@pytest.mark.parametrize("path", ["/livez", "status", "/{any}", "/a b", ""])
def test_a_path_that_cannot_be_served_is_a_mistake(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        HealthCheck.Config(path=path)


def test_changes_of_the_state_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    health = Health()
    health.ready()
    health.ready()
    health.stopping()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["health: starting -> ready", "health: ready -> stopping"]
