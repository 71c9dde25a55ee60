"""The table of components: name in YAML -> class. A new component is one file and one row here.

Classes are imported when a configuration names them. Third parties' processors need no row: an entry point in the group
`otel_pipeline.processors` is one, and cannot take the name of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, cast, get_args

from otel_pipeline.contracts import Settings
from otel_pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.metadata import EntryPoint

Kind: TypeAlias = Literal["receivers", "processors", "exporters", "extensions"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

ENTRY_POINTS: Final = "otel_pipeline.processors"
ALL: Final = ("traces", "metrics", "logs")


class ComponentClass(Protocol):
    """What all components have in common; the rest is in `contracts.py`."""

    Config: type[Settings]
    """What the operator writes."""


AnyComponent: TypeAlias = type[ComponentClass]
"""The class of a component."""


@dataclass(frozen=True, slots=True)
class Row:
    """One component."""

    module: str
    class_name: str
    signals: tuple[str, ...]
    """The signals whose pipelines may name it; empty for an extension."""
    stability: str
    """alpha, beta or stable, as in the Collector; third party."""
    description: str
    aliases: tuple[str, ...] = ()
    """Other names in YAML."""
    built: bool = True
    """False: only settings, which other parts of the gateway read; there is nothing to build."""
    distribution: str = ""
    """The third party's package; empty for a row of the table."""
    problem: str = ""
    """Why it cannot be used, if that is known before it is imported."""

    def load(self) -> AnyComponent:
        """Imports the class. Raises ConfigError with what is wrong, without a path."""
        origin = f"the component of the distribution {self.distribution}" if self.distribution else "the component"
        if self.problem:
            raise ConfigError([self.problem])
        try:
            found: object = import_module(self.module)
            for name in self.class_name.split("."):
                found = getattr(found, name)
        except Exception as error:  # what a foreign module does when imported is not ours to know
            raise ConfigError([f"{origin} cannot be imported: {type(error).__name__}: {error}"]) from error
        config = getattr(found, "Config", None)
        if not (isinstance(found, type) and isinstance(config, type) and issubclass(config, Settings)):
            where = f"{self.module}:{self.class_name}"
            raise ConfigError([f"{origin}, {where}, is no class with a nested Config that is a contracts.Settings"])
        return cast("AnyComponent", found)


Rows: TypeAlias = "Mapping[str, Row]"

_RECEIVERS: Final = {
    "otlp": Row("otel_pipeline.receivers.otlp", "OtlpReceiver", ALL, "beta", "Takes OTLP in, over gRPC and HTTP."),
    "dcgm": Row("otel_pipeline.receivers.dcgm", "DcgmReceiver", ("metrics",), "alpha", "Asks NVIDIA DCGM exporters."),
    "nvml": Row(
        "otel_pipeline.receivers.nvml", "NvmlReceiver", ("metrics",), "alpha", "Samples the GPUs of this machine."
    ),
}

_PROCESSORS: Final = {
    "memory_limiter": Row(
        "otel_pipeline.processors.memory_limiter",
        "MemoryLimiterSettings",
        ALL,
        "beta",
        "From which memory use on requests are refused at the door.",
        built=False,
    ),
    "redaction": Row(
        "otel_pipeline.processors.redaction",
        "RedactionProcessor",
        ALL,
        "alpha",
        "Removes secrets, and what tells who somebody is, from every string.",
    ),
    "resource": Row(
        "otel_pipeline.processors.resource", "ResourceProcessor", ALL, "beta", "Sets and deletes resource attributes."
    ),
    "attributes": Row(
        "otel_pipeline.processors.attributes",
        "AttributesProcessor",
        ("traces", "logs"),
        "beta",
        "Sets and deletes attributes of spans and log records.",
    ),
    "filter": Row(
        "otel_pipeline.processors.filter",
        "FilterProcessor",
        ALL,
        "alpha",
        "Drops what matches a condition, and counts it.",
    ),
    "lost_jobs": Row(
        "otel_pipeline.processors.lost_jobs",
        "LostJobsProcessor",
        ("traces",),
        "alpha",
        "Ends the jobs of workers that were killed, as lost.",
    ),
    "gpu_stats": Row(
        "otel_pipeline.processors.gpu_stats",
        "GpuStatsProcessor",
        ("traces", "metrics"),
        "alpha",
        "Says on each span what its GPUs did meanwhile.",
    ),
    "error_class": Row(
        "otel_pipeline.processors.error_class",
        "ErrorClassProcessor",
        ("traces", "logs"),
        "alpha",
        "Names what kind of failure a span or log record reports.",
    ),
    "cost": Row(
        "otel_pipeline.processors.cost",
        "CostProcessor",
        ("traces", "metrics"),
        "alpha",
        "Says on each span what it costs, and keeps the ledger's claims.",
    ),
    "span_metrics": Row(
        "otel_pipeline.processors.span_metrics",
        "SpanMetricsProcessor",
        ("traces",),
        "alpha",
        "Counts calls, errors and durations of spans, for the prometheus exporter.",
    ),
    "batch": Row(
        "otel_pipeline.processors.batch",
        "BatchSettings",
        ALL,
        "beta",
        "How large the requests to the backends become.",
        built=False,
    ),
}

_EXPORTERS: Final = {
    "otlp": Row(
        "otel_pipeline.exporters.otlp", "OtlpExporter", ALL, "beta", "Sends OTLP over gRPC.", aliases=("otlp_grpc",)
    ),
    "otlphttp": Row(
        "otel_pipeline.exporters.otlphttp",
        "OtlpHttpExporter",
        ALL,
        "beta",
        "Sends OTLP over HTTP.",
        aliases=("otlp_http",),
    ),
    "file": Row("otel_pipeline.exporters.file", "FileExporter", ALL, "alpha", "Writes OTLP to files."),
    "debug": Row("otel_pipeline.exporters.debug", "DebugExporter", ALL, "alpha", "Tells on stderr what arrives."),
    "prometheus": Row(
        "otel_pipeline.exporters.prometheus",
        "PrometheusExporter",
        ("metrics",),
        "alpha",
        "Shows metrics for Prometheus to scrape.",
    ),
}

_EXTENSIONS: Final = {
    "health_check": Row(
        "otel_pipeline.extensions.health_check",
        "HealthCheck",
        (),
        "beta",
        "Answers whether the gateway lives and is ready.",
        built=False,
    ),
}

TABLE: Final[Mapping[Kind, Rows]] = {
    "receivers": _RECEIVERS,
    "processors": _PROCESSORS,
    "exporters": _EXPORTERS,
    "extensions": _EXTENSIONS,
}


@dataclass(frozen=True, slots=True)
class Registry:
    """The components that a configuration may name."""

    rows: Mapping[Kind, Rows]
    warnings: tuple[str, ...] = ()
    """What was found and left out."""

    def find(self, kind: Kind, name: str) -> tuple[str, Row] | None:
        """The name in the table and the row of a name or alias."""
        for main, row in self.rows[kind].items():
            if name == main or name in row.aliases:
                return main, row
        return None

    def names(self, kind: Kind) -> list[str]:
        """Every name and alias."""
        return sorted(name for main, row in self.rows[kind].items() for name in (main, *row.aliases))


def installed(found: Iterable[EntryPoint] | None = None) -> Registry:
    """The table and the third parties' processors; nothing is imported. `found` replaces the entry points for tests."""
    processors: dict[str, Row] = dict(TABLE["processors"])
    built_in = Registry(TABLE)
    warnings = []
    for entry in sorted(entry_points(group=ENTRY_POINTS) if found is None else found, key=_distribution):
        if built_in.find("processors", entry.name):
            theirs = f"the processor {entry.name} of the distribution {_distribution(entry)}"
            warnings.append(f"{theirs} is left out: the name is built in")
        elif entry.name in processors:
            row = processors[entry.name]
            both = f"{row.distribution} and {_distribution(entry)}"
            processors[entry.name] = _third_party(entry, f"two distributions offer this name: {both}; uninstall one")
        else:
            processors[entry.name] = _third_party(entry)
    return Registry({**TABLE, "processors": processors}, tuple(warnings))


def _third_party(entry: EntryPoint, problem: str = "") -> Row:
    distribution = _distribution(entry)
    return Row(
        entry.module,
        entry.attr,
        ALL,
        "third party",
        f"From the distribution {distribution}.",
        distribution=distribution,
        problem=problem,
    )


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "(unknown)"
