"""From YAML in the Collector's shape to typed, validated settings: every mistake at once, each with its path.

Sources are merged (`sources.py`), references followed (`expansion.py`), sections validated (`validation.py`); this file
knows the shape of the whole. A component that no pipeline names is validated all the same, and not built.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic import Field

from otel_pipeline.components import KINDS, Kind, Registry, Row, installed
from otel_pipeline.config.expansion import Expansion, expand
from otel_pipeline.config.sources import read
from otel_pipeline.config.telemetry import TelemetryConfig
from otel_pipeline.config.validation import Findings, SettingsT, suggestion, validated
from otel_pipeline.contracts import Settings
from otel_pipeline.errors import ConfigError
from otel_pipeline.settings import Duration
from otel_pipeline.store.config import StoreConfig
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otel_pipeline.config.expansion import Path as ConfigPath

ID_NAME_MAX: Final = 1024
"""Characters of the part behind the slash, as in the Collector."""
TOP_LEVEL: Final = (*KINDS, "connectors", "service", "outbox", "store")
_SERVICE: Final = ("extensions", "pipelines", "telemetry")
_ROLES: Final[tuple[Kind, ...]] = ("receivers", "processors", "exporters")
_TYPE: Final = re.compile(r"[a-zA-Z][0-9a-zA-Z_]{0,62}")
AnyClass: TypeAlias = type[Any]

_SIGNALS: Final = {signal.word: signal for signal in Signal}


class OutboxConfig(Settings):
    """The durable store between processing and exporters."""

    sync: Literal["interval", "always", "off"] = "interval"
    """When the disk is asked to keep what was acknowledged. A kill of the gateway loses nothing in any mode; a power
    cut loses nothing with always, up to sync_interval with interval, perhaps all that is queued with off."""
    sync_interval: Duration = 1.0
    """How often, with sync: interval."""
    max_size_mib: int = Field(default=4096, ge=16, le=1024 * 1024)
    """How much may wait for backends, in MiB; beyond it requests are refused with the advice to come again."""
    directory: Path | None = Field(default=None, examples=["/var/lib/otel-pipeline/outbox"])
    """Where it is; by default the directory `outbox` in the data directory."""

    def path(self, data_dir: Path) -> Path:
        """Where the store is on disk."""
        return self.directory or data_dir / "outbox"


@dataclass(frozen=True, slots=True)
class ComponentSettings:
    """One configured component."""

    id: str
    """type or type/name, as written."""
    type: str
    """The name in the table; of an alias, the name it stands for."""
    component: AnyClass
    """The class; its constructor is told in `contracts.py`, by kind."""
    config: Any
    """An instance of `component.Config`, which alone knows its fields."""
    built: bool
    """False: there are only settings."""


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """One pipeline; the ids are keys of the gateway's components, in order."""

    signal: Signal
    receivers: tuple[str, ...]
    processors: tuple[str, ...]
    exporters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """A configuration without mistakes."""

    receivers: dict[str, ComponentSettings]
    processors: dict[str, ComponentSettings]
    exporters: dict[str, ComponentSettings]
    extensions: dict[str, ComponentSettings]
    service_extensions: tuple[str, ...]
    """The extensions to start; others are configured and not started."""
    pipelines: dict[str, PipelineConfig]
    outbox: OutboxConfig
    store: StoreConfig
    telemetry: TelemetryConfig
    warnings: list[str] = field(default_factory=list)


def load(
    sources: Sequence[str], registry: Registry | None = None, environ: Mapping[str, str] | None = None
) -> GatewayConfig:
    """Reads paths and `file:`, `env:`, `yaml:` URIs, later over earlier. Raises ConfigError with every mistake."""
    variables = os.environ if environ is None else environ
    expansion = expand(read(sources, variables), variables)
    if not expansion.tree:
        raise ConfigError(["the configuration is empty; needed: receivers, exporters, service.pipelines"])
    reader = _Reader(expansion, registry or installed())
    config = reader.config()
    if reader.findings.mistakes:
        raise ConfigError(reader.findings.mistakes)
    return config


def default_config(overrides: Sequence[str] = ()) -> GatewayConfig:
    """What the gateway does without a configuration: `default.yaml` of this package, and sources over it."""
    return load([default_source(), *overrides])


def default_source(name: str = "default.yaml") -> str:
    """The `yaml:` URI of `default.yaml`, or of another file of this package."""
    return "yaml:" + resources.files("otel_pipeline.config").joinpath(name).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Reader:
    expansion: Expansion
    registry: Registry
    findings: Findings = field(default_factory=Findings)
    defined: dict[Kind, dict[str, frozenset[str]]] = field(default_factory=dict)
    """Every id that is configured, also those with mistakes, and the signals it takes."""

    def config(self) -> GatewayConfig:
        tree = self.expansion.tree
        self.findings.warnings.extend((*self.registry.warnings, *self.expansion.warnings))
        self.unknown_keys(tree, TOP_LEVEL, ())
        components = {kind: self.components(kind) for kind in KINDS}
        for name in self.map_at(tree, ("connectors",)):
            self.findings.wrong(("connectors", name), "there are no connectors; instead of spanmetrics: span_metrics")
        service = self.map_at(tree, ("service",))
        self.unknown_keys(service, _SERVICE, ("service",))
        extensions = self.references(service, "extensions", "extensions", ("service",))
        pipelines = dict(self.pipelines(service, components["processors"]))
        telemetry = self.section(TelemetryConfig, service.get("telemetry"), ("service", "telemetry"))
        outbox = self.section(OutboxConfig, tree.get("outbox"), ("outbox",))
        store = self.section(StoreConfig, tree.get("store"), ("store",))
        return GatewayConfig(
            components["receivers"],
            components["processors"],
            components["exporters"],
            components["extensions"],
            extensions,
            pipelines,
            outbox,
            store,
            telemetry,
            self.findings.warnings,
        )

    # -- components ------------------------------------------------------------------------------------------------

    def components(self, kind: Kind) -> dict[str, ComponentSettings]:
        found: dict[str, ComponentSettings] = {}
        defined = self.defined.setdefault(kind, {})
        for written, node in self.map_at(self.expansion.tree, (kind,)).items():
            path: tuple[Kind, str] = (kind, written)
            try:
                type_name, component_id = _parsed_id(written)
            except ValueError as error:
                self.findings.wrong(path, str(error))
                continue
            if component_id in defined:
                self.findings.wrong(path, f"the id {component_id} stands twice")
                continue
            row = self.registry.find(kind, type_name)
            defined[component_id] = frozenset(row[1].signals if row else _SIGNALS)
            if row is None:
                self.findings.wrong(path, f"unknown type; {suggestion(type_name, self.registry.names(kind))}")
                continue
            settings = self.component((kind, written), component_id, *row, node)
            if settings is not None:
                found[component_id] = settings
        return found

    def component(
        self, path: tuple[Kind, str], component_id: str, type_name: str, row: Row, node: object
    ) -> ComponentSettings | None:
        try:
            component = row.load()
        except ConfigError as error:
            self.findings.wrong(path, str(error))
            return None
        if hasattr(component, "signals"):
            self.defined[path[0]][component_id] = frozenset(signal.word for signal in component.signals)
        config = validated(component.Config, node, path, self.expansion, self.findings)
        return ComponentSettings(component_id, type_name, component, config, row.built) if config is not None else None

    # -- pipelines -------------------------------------------------------------------------------------------------

    def pipelines(
        self, service: Mapping[str, Any], processors: Mapping[str, ComponentSettings]
    ) -> Iterator[tuple[str, PipelineConfig]]:
        nodes = self.map_at(service, ("service", "pipelines"))
        if not nodes:
            self.findings.wrong(("service", "pipelines"), "at least one pipeline is needed, such as traces")
        for written in nodes:
            path = ("service", "pipelines", written)
            try:
                word, pipeline_id = _parsed_id(written)
            except ValueError as error:
                self.findings.wrong(path, str(error))
                continue
            signal = _SIGNALS.get(word)
            if signal is None:
                self.findings.wrong(path, f"unknown signal; {suggestion(word, _SIGNALS)}")
                continue
            node = self.map_at(nodes, path)
            self.unknown_keys(node, _ROLES, path)
            ids = {role: self.references(node, role, role, path, word) for role in _ROLES}
            for role in ("receivers", "exporters"):
                if not node.get(role):
                    self.findings.wrong((*path, role), f"at least one of the configured {role} is needed")
            self.rewriter_first([processors.get(one) for one in ids["processors"]], (*path, "processors"))
            yield pipeline_id, PipelineConfig(signal, ids["receivers"], ids["processors"], ids["exporters"])

    def references(
        self, node: Mapping[str, Any], key: str, kind: Kind, path: ConfigPath, signal: str = ""
    ) -> tuple[str, ...]:
        """The ids of a list, each once; checks that each is configured and takes the signal."""
        listed = node.get(key)
        if listed is None:
            return ()
        if not isinstance(listed, list) or not all(isinstance(written, str) for written in listed):
            self.findings.wrong((*path, key), f"must be a list of ids of {kind}")
            return ()
        ids: list[str] = []
        for index, written in enumerate(listed):
            where = (*path, key, index)
            component_id = _normal_id(written)
            if component_id in ids:
                self.repeated(kind, component_id, where)
                continue
            ids.append(component_id)
            if component_id not in self.defined[kind]:
                choice = suggestion(component_id, self.defined[kind])
                self.findings.wrong(where, f"{component_id} is not configured in {kind}; {choice}")
                continue
            taken = self.defined[kind][component_id]
            if signal and signal not in taken:
                self.findings.wrong(where, f"{component_id} takes no {signal}; allowed: {', '.join(sorted(taken))}")
        return tuple(ids)

    def rewriter_first(self, processors: Sequence[ComponentSettings | None], path: ConfigPath) -> None:
        """One that changes requests before they are read must stand before those that read them."""
        built = [one for one in processors if one is not None and one.built]
        for one in built[1:]:
            if hasattr(one.component, "rewrite"):
                before = f"{one.id} must stand before {built[0].id}"
                self.findings.wrong(path, f"{before}: it works on requests as they come")

    def repeated(self, kind: Kind, component_id: str, where: ConfigPath) -> None:
        if kind == "processors":
            self.findings.wrong(where, f"{component_id} stands twice in the pipeline; allowed: once")
        else:
            self.findings.warn(where, f"{component_id} stands twice, once is enough")

    # -- pieces ----------------------------------------------------------------------------------------------------

    def section(self, model: type[SettingsT], node: object, path: ConfigPath) -> SettingsT:
        """Defaults stand in for settings with mistakes: nobody gets to see them."""
        return validated(model, node, path, self.expansion, self.findings) or model()

    def map_at(self, holder: Mapping[str, Any], path: ConfigPath) -> Mapping[str, Any]:
        """What `holder` has at the end of `path`; an absent or empty one is an empty map."""
        node = holder.get(str(path[-1]))
        if node is None or isinstance(node, dict):
            return node or {}
        self.findings.wrong(path, "must be a map")
        return {}

    def unknown_keys(self, node: Mapping[str, Any], allowed: Sequence[str], path: ConfigPath) -> None:
        for key in node:
            if key not in allowed:
                self.findings.wrong((*path, key), f"unknown key; {suggestion(key, allowed)}")


def _normal_id(written: str) -> str:
    """The Collector ignores blanks around both parts."""
    return "/".join(part.strip() for part in written.split("/", 1))


def _parsed_id(written: str) -> tuple[str, str]:
    """Type and id of `type` or `type/name`."""
    type_name, slash, name = _normal_id(written).partition("/")
    if not _TYPE.fullmatch(type_name):
        raise ValueError("is no id; the type has letters, digits and _, a letter first, at most 63")
    if slash and not name:
        raise ValueError("is no id; there must be a name behind the slash")
    if len(name) > ID_NAME_MAX:
        raise ValueError(f"is no id; the name behind the slash has at most {ID_NAME_MAX} characters")
    if any(unicodedata.category(character)[0] in "ZCS" for character in name):
        raise ValueError("is no id; the name behind the slash has no blanks, control characters or symbols")
    return type_name, f"{type_name}{slash}{name}"
