"""Settings of `health_check`: where orchestrators ask whether the gateway lives and is ready."""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import Field, field_validator

from otel_pipeline.contracts import Settings
from otel_pipeline.health import LIVE
from otel_pipeline.settings import Endpoint

_PLAIN: Final = "the probes answer plain HTTP with a body of their own"


class HealthCheck:
    """Answers HTTP probes on a port of its own."""

    class Config(Settings):
        """Beside `path` there are always /livez and /readyz."""

        without_effect: ClassVar[dict[str, str]] = {
            "check_collector_pipeline": "readiness reports the outbox and the kernel instead",
            "component_health": "readiness reports the outbox and the kernel instead",
            "response_body": _PLAIN,
            "tls": _PLAIN,
            "cors": _PLAIN,
            "auth": _PLAIN,
            "transport": _PLAIN,
            "response_headers": _PLAIN,
            "read_timeout": _PLAIN,
            "read_header_timeout": _PLAIN,
            "write_timeout": _PLAIN,
            "idle_timeout": _PLAIN,
            "keep_alives_enabled": _PLAIN,
            "max_request_body_size": _PLAIN,
            "compression_algorithms": _PLAIN,
            "include_metadata": _PLAIN,
            "use_v2": _PLAIN,
            "grpc": _PLAIN,
            "http": _PLAIN,
        }

        endpoint: Endpoint = "127.0.0.1:13133"
        """host:port to listen on."""
        path: str = Field(default="/", pattern=r"^/[^{}?#\s]*$")
        """The path that answers 200 when the gateway is ready, else 503."""

        @field_validator("path")
        @classmethod
        def _is_its_own(cls, path: str) -> str:
            if path == LIVE:
                raise ValueError(f"{LIVE} answers whether the gateway lives; allowed: another path")
            return path
