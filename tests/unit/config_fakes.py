"""Components that exist for tests of configurations only, and a configuration that names them."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, SecretStr

from otel_pipeline.components import ALL, Registry, Row
from otel_pipeline.config.loader import GatewayConfig, load
from otel_pipeline.contracts import Settings
from otel_pipeline.errors import ConfigError
from otel_pipeline.settings import Duration, Endpoint, Headers, Retry, SendingQueue, TlsClient, TlsServer
from otel_pipeline.wire.signal import Signal


class Listener(Settings):
    """A section that is on when its key is there."""

    endpoint: Endpoint = "127.0.0.1:1"
    """Where."""
    tls: TlsServer | None = None
    """How."""


class Door:
    """A receiver."""

    class Config(Settings):
        """Its settings."""

        grpc: Listener | None = None
        """On when present."""
        http: Listener | None = None
        """On when present."""


class Rule(Settings):
    """An element of a list."""

    key: str
    """What."""
    action: Literal["insert", "delete"] = "insert"
    """How."""
    value: Any = None
    """To what."""


class Color(Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


class Rules:
    """A processor."""

    class Config(Settings):
        """Its settings."""

        rules: list[Rule] = Field(default_factory=list)
        """The rules."""
        limit: int = Field(default=0, ge=0)
        """A number."""
        text: str = "unset"
        """A text."""
        color: Color = Color.RED
        """One of few."""
        named: dict[str, Rule] = Field(default_factory=dict)
        """Rules by name."""


class TracesOnly(Rules):
    """A processor that names its signals itself."""

    signals: ClassVar = frozenset({Signal.TRACES})


class Backend:
    """An exporter."""

    class Config(Settings):
        """Its settings."""

        without_effect: ClassVar[dict[str, str]] = {"balancer_name": "there is one backend", "authority": "nobody asks"}

        endpoint: Endpoint = "127.0.0.1:2"
        """Where."""
        key: SecretStr | None = None
        """A secret."""
        timeout: Duration = 5.0
        """How long."""
        port: int = 0
        """A number or a word would not do."""
        sizes: tuple[int | str, ...] = ()
        """Numbers or words."""
        tls: TlsClient = TlsClient()
        """How."""
        headers: Headers = Field(default_factory=dict)
        """With what."""
        retry_on_failure: Retry = Retry()
        """When."""
        sending_queue: SendingQueue = SendingQueue()
        """Not."""


class NoConfig:
    """No component."""


def row(name: str, signals: tuple[str, ...] = ALL, aliases: tuple[str, ...] = ()) -> Row:
    return Row(__name__, name, signals, "beta", "A fake.", aliases)


REGISTRY = Registry(
    {
        "receivers": {"door": row("Door")},
        "processors": {
            "rules": row("Rules"),
            "metric_rules": row("Rules", ("metrics",)),
            "traces_only": row("TracesOnly"),
            "absent": Row("otel_pipeline.no_such_module", "X", ALL, "beta", ""),
            "no_config": row("NoConfig"),
        },
        "exporters": {"backend": row("Backend", aliases=("backend_grpc",))},
        "extensions": {"door": row("Door", ())},
    }
)

BASE = """
receivers:
  door:
    grpc:
exporters:
  backend:
service:
  pipelines:
    traces:
      receivers: [door]
      exporters: [backend]
"""


def loaded(*texts: str, **environ: str) -> GatewayConfig:
    return load([f"yaml:{text}" for text in texts], REGISTRY, environ)


def mistakes(*texts: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(*texts, **environ)
    return caught.value.mistakes


def backend(settings: str, **environ: str) -> Any:
    return loaded(BASE, f"exporters: {{backend: {settings}}}", **environ).exporters["backend"].config


def backend_mistakes(settings: str, **environ: str) -> list[str]:
    return mistakes(BASE, f"exporters: {{backend: {settings}}}", **environ)
