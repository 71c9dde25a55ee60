"""Settings of the gateway's telemetry about itself: `service.telemetry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field

from otel_pipeline.contracts import Settings
from otel_pipeline.settings import Endpoint

_NAMES: Final = "metric names and labels are fixed"
_STDERR: Final = "log lines go to stderr"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _flat_resource(value: object) -> object:
    """The list under `attributes`, the Collector's newer form, as a map."""
    if not isinstance(value, Mapping) or not isinstance(value.get("attributes"), list):
        return value
    kept = {key: below for key, below in value.items() if key not in {"attributes", "schema_url", "detectors"}}
    for entry in value["attributes"]:
        if not isinstance(entry, Mapping) or not {"name", "value"} <= set(entry) <= {"name", "value", "type"}:
            raise ValueError("attributes must be a list of {name, value}")
        kept[entry["name"]] = entry["value"]
    return kept


class PrometheusReader(Settings):
    """Where the gateway's own metrics can be scraped."""

    without_effect: ClassVar[dict[str, str]] = {
        "without_scope_info": _NAMES,
        "without_type_suffix": _NAMES,
        "without_units": _NAMES,
        "with_resource_constant_labels": _NAMES,
        "translation_strategy": _NAMES,
    }

    host: str = "127.0.0.1"
    """The interface to listen on."""
    port: int = Field(default=8888, ge=0, le=65535)
    """The port to listen on."""


class PullExporter(Settings):
    """The kind of exposition."""

    prometheus: PrometheusReader
    """For Prometheus."""


class Pull(Settings):
    """A reader that waits to be asked."""

    exporter: PullExporter
    """What it answers."""


class MetricReader(Settings):
    """A way out for the gateway's own metrics."""

    without_effect: ClassVar[dict[str, str]] = {"periodic": "own metrics are scraped, not pushed"}

    pull: Pull | None = Field(default=None, examples=[{"exporter": {"prometheus": {}}}])
    """Answer scrapes."""


class MetricsTelemetry(Settings):
    """The gateway's own metrics."""

    without_effect: ClassVar[dict[str, str]] = {"views": _NAMES}

    level: Annotated[Literal["none", "basic", "normal", "detailed"], BeforeValidator(_lower)] = "normal"
    """none: not served. The others make no difference."""
    address: Endpoint | None = Field(default=None, examples=["127.0.0.1:8888"])
    """host:port to answer scrapes on; `readers` says the same in more words and comes first."""
    readers: list[MetricReader] | None = None
    """The first with `pull` counts; an empty list: not served."""


class LogsTelemetry(Settings):
    """The gateway's own log lines."""

    without_effect: ClassVar[dict[str, str]] = {
        "encoding": _STDERR,
        "output_paths": _STDERR,
        "error_output_paths": _STDERR,
        "initial_fields": _STDERR,
        "processors": _STDERR,
        "development": "there is no development mode",
        "disable_caller": "lines name the module",
        "disable_stacktrace": "tracebacks come with internal errors only",
        "sampling": "repeated warnings are always limited",
    }

    level: Annotated[Literal["debug", "info", "warn", "error"], BeforeValidator(_lower)] = "info"
    """The least important lines to write."""


class TelemetryConfig(Settings):
    """What the gateway tells about itself."""

    without_effect: ClassVar[dict[str, str]] = {"traces": "the gateway does not trace itself"}

    metrics: MetricsTelemetry = MetricsTelemetry()
    """Its own metrics."""
    logs: LogsTelemetry = LogsTelemetry()
    """Its own log lines."""
    resource: Annotated[dict[str, str | None], BeforeValidator(_flat_resource)] = Field(default_factory=dict)
    """Resource attributes of its own telemetry; null removes one."""

    @property
    def metrics_address(self) -> str | None:
        """host:port on which own metrics are served; None: not served."""
        if self.metrics.level == "none":
            return None
        if self.metrics.readers is None:
            return self.metrics.address or "127.0.0.1:8888"
        for reader in self.metrics.readers:
            if reader.pull is not None:
                own = reader.pull.exporter.prometheus
                host = f"[{own.host}]" if ":" in own.host else own.host
                return f"{host}:{own.port}"
        return None
