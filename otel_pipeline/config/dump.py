"""A configuration back in the shape it was read from, with defaults and without secrets: what `print-config` prints."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from pydantic import SecretBytes, SecretStr

from otel_pipeline.settings import REDACTED, without_password

if TYPE_CHECKING:
    from otel_pipeline.config.loader import ComponentSettings, GatewayConfig
    from otel_pipeline.contracts import Settings


def dumped(config: GatewayConfig, *, reveal: bool) -> dict[str, Any]:
    """The tree of a YAML or JSON document. With `reveal` it loads again as the same configuration."""
    pipelines = {
        name: {
            "receivers": list(pipeline.receivers),
            "processors": list(pipeline.processors),
            "exporters": list(pipeline.exporters),
        }
        for name, pipeline in config.pipelines.items()
    }
    return {
        "receivers": _components(config.receivers, reveal=reveal),
        "processors": _components(config.processors, reveal=reveal),
        "exporters": _components(config.exporters, reveal=reveal),
        "extensions": _components(config.extensions, reveal=reveal),
        "outbox": plain_settings(config.outbox, reveal=reveal),
        "store": plain_settings(config.store, reveal=reveal),
        "service": {
            "extensions": list(config.service_extensions),
            "pipelines": pipelines,
            "telemetry": plain_settings(config.telemetry, reveal=reveal),
        },
    }


def plain_settings(settings: Settings, *, reveal: bool) -> dict[str, Any]:
    """Settings in types that YAML has. What is None is left out: a key without a value would switch on its defaults."""
    tree: dict[str, Any] = plain(settings.model_dump(by_alias=True, exclude_none=True), reveal=reveal)
    return tree


def _components(components: Mapping[str, ComponentSettings], *, reveal: bool) -> dict[str, Any]:
    return {name: plain_settings(component.config, reveal=reveal) for name, component in components.items()}


def plain(value: Any, *, reveal: bool) -> Any:
    """A value in types that YAML has. Reads back as the same only with `reveal`."""
    if isinstance(value, SecretStr | SecretBytes):
        secret = value.get_secret_value()
        return plain(secret, reveal=True) if reveal else REDACTED
    if isinstance(value, Mapping):
        return {str(key): plain(below, reveal=reveal) for key, below in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(below, reveal=reveal) for below in value]
    if isinstance(value, Enum):
        return plain(value.value, reveal=reveal)
    if isinstance(value, int | float) or value is None:
        return value
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.replace("$", "$$") if reveal else without_password(text)
