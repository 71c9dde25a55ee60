"""OpenTelemetry's names, units and attributes as Prometheus writes them.

Follows "Prometheus and OpenMetrics Compatibility" of the OpenTelemetry specification; where that is silent, what the
Collector's exporter does, so that dashboards made for it fit.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from prometheus_client.utils import floatToGoString

from otel_pipeline.limits import LABEL_CHARS_MAX
from otel_pipeline.wire.values import python_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    from otel_pipeline.wire.values import Value

METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

UNITS: Final = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tebibytes",
    "kBy": "kilobytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "1": "",
    "%": "percent",
}
PER_UNITS: Final = {
    "s": "second",
    "m": "minute",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "w": "week",
    "wk": "week",
    "mo": "month",
    "y": "year",
    "a": "year",
}
_ANNOTATION: Final = re.compile(r"\{[^}]*\}")
_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9:]+")
_NO_LABEL: Final = re.compile(r"[^a-zA-Z0-9]+")


def metric_name(name: str, unit: str, kind: str, namespace: str = "", *, suffixes: bool = True) -> tuple[str, str]:
    """The name of a metric, with `_total` if it is a counter, and the unit that stands in it; both may be empty.

    An empty name means that nothing of the original can be kept.
    """
    parts = [word for word in _NO_NAME.split(name) if word]
    unit_words = ""
    if suffixes and parts:
        parts, unit_words = _with_suffixes(parts, unit, kind)
    joined = "_".join([*(word for word in _NO_NAME.split(namespace) if word), *parts]) if parts else ""
    return (f"_{joined}" if joined[:1].isdigit() else joined), unit_words


def _with_suffixes(parts: list[str], unit: str, kind: str) -> tuple[list[str], str]:
    main, per = unit_suffixes(unit)
    if kind == "gauge" and unit == "1":
        main = "ratio"
        parts = [word for word in parts if word != "ratio"]
    if kind == "counter":
        parts = [word for word in parts if word != "total"]
    parts = [*parts, *(word for word in (main, per) if word and word not in parts)]
    words = "_".join(word for word in (main, per) if word)
    # OpenMetrics allows UNIT metadata only where the name ends in the unit.
    stands = words if words and "_".join(parts).endswith(f"_{words}") else ""
    return [*parts, "total"] if kind == "counter" else parts, stands


def with_namespace(namespace: str, name: str) -> str:
    """A valid name behind a namespace, as `metric_name` puts it."""
    return "_".join([*(word for word in _NO_NAME.split(namespace) if word), name])


def unit_suffixes(unit: str) -> tuple[str, str]:
    """A UCUM unit in words: `By/s` gives bytes and per_second; annotations in braces go."""
    main, _, per = _ANNOTATION.sub("", unit).partition("/")
    main, per = main.strip(), per.strip()
    per_words = _words(PER_UNITS.get(per, per))
    return _words(UNITS.get(main, main)), f"per_{per_words}" if per_words else ""


def _words(unit: str) -> str:
    return _NO_LABEL.sub("_", unit).strip("_")


def label_name(key: str) -> str:
    """An attribute key as a label name: never empty, never reserved (`__...`)."""
    name = _NO_LABEL.sub("_", key[:LABEL_CHARS_MAX])
    return f"key_{name.lstrip('_')}" if not name or name[0].isdigit() or name[0] == "_" else name


def label_text(value: Value) -> str:
    """An attribute value as a label value, cut at the limit."""
    return _text(value)[:LABEL_CHARS_MAX]


def labels_of(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Attributes as labels: values of keys that become one name are joined by `;` in the order of the keys.

    Empty values go: to Prometheus a label with an empty value is no label. Of equal keys the first counts.
    """
    first: dict[str, str] = {}
    for pair in attributes:
        if pair.key not in first:
            first[pair.key] = label_text(python_value(pair.value))
    labels: dict[str, str] = {}
    for key in sorted(first):
        if first[key]:
            name = label_name(key)
            labels[name] = f"{labels[name]};{first[key]}"[:LABEL_CHARS_MAX] if name in labels else first[key]
    return labels


def number_text(number: float) -> str:
    """A number as the text formats write it in `le` and `quantile`."""
    text: str = floatToGoString(number)  # type: ignore[no-untyped-call]  # has no annotations
    return text


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    return json.dumps(value, default=bytes.hex, separators=(",", ":"))
