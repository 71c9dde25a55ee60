"""What holds for every component in the table, and for third parties' processors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.metadata import Distribution, EntryPoint
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from otel_pipeline.components import ENTRY_POINTS, KINDS, TABLE, Kind, Row, installed
from otel_pipeline.config.loader import OutboxConfig, load
from otel_pipeline.config.telemetry import TelemetryConfig
from otel_pipeline.config.validation import element_of, keys_of, section_of
from otel_pipeline.contracts import Settings
from otel_pipeline.errors import ConfigError
from otel_pipeline.wire.signal import Signal

ROOT = Path(__file__).parents[2]
WORDS = {signal.word for signal in Signal}
STABILITY = ("alpha", "beta", "stable")

COMPONENTS = [pytest.param(kind, name, row, id=f"{kind}.{name}") for kind in KINDS for name, row in TABLE[kind].items()]
every_component = pytest.mark.parametrize(("kind", "name", "row"), COMPONENTS)


def models(model: type[Settings]) -> Iterator[type[Settings]]:
    """The model and those of its sections."""
    yield model
    for info in model.model_fields.values():
        section = section_of(info.annotation) or section_of(element_of(info.annotation))
        if section is not None:
            yield from models(section)


# -- the table ---------------------------------------------------------------------------------------------------------


@every_component
def test_the_file_carries_the_name_of_the_component(kind: Kind, name: str, row: Row) -> None:
    assert row.module == f"otel_pipeline.{kind}.{name}"


@every_component
def test_the_row_is_complete(kind: Kind, name: str, row: Row) -> None:  # noqa: ARG001  all have the same parameters
    assert row.stability in STABILITY
    assert row.description.endswith(".")
    assert set(row.signals) <= WORDS
    assert bool(row.signals) == (kind != "extensions")


@every_component
def test_names_and_aliases_are_unique(kind: Kind, name: str, row: Row) -> None:
    names = [word for other, its in TABLE[kind].items() for word in (other, *its.aliases)]
    assert all(names.count(word) == 1 for word in (name, *row.aliases))


@every_component
def test_the_class_and_every_setting_is_documented(kind: Kind, name: str, row: Row) -> None:  # noqa: ARG001
    component = row.load()
    assert component.__doc__
    for model in models(component.Config):
        assert model.__doc__, model
        assert not [field for field, info in model.model_fields.items() if not info.description], model


@every_component
def test_what_has_no_effect_is_no_setting_and_has_a_reason(kind: Kind, name: str, row: Row) -> None:  # noqa: ARG001
    for model in models(row.load().Config):
        assert not set(model.without_effect) & set(keys_of(model)), model
        assert all(model.without_effect.values()), model


@every_component
def test_settings_are_frozen_and_refuse_unknown_keys(kind: Kind, name: str, row: Row) -> None:  # noqa: ARG001
    for model in models(row.load().Config):
        assert model.model_config.get("frozen"), model
        assert model.model_config.get("extra") == "forbid", model


@every_component
def test_the_constructor_takes_settings_and_context(kind: Kind, name: str, row: Row) -> None:  # noqa: ARG001
    parameters = list(inspect.signature(row.load()).parameters)
    expected = ["config", "context"] if row.built else []
    assert parameters[:2] == expected
    assert parameters[2:] == (["entrances"] if kind == "receivers" else [])


@every_component
def test_a_class_that_names_its_signals_agrees_with_its_row(kind: Kind, name: str, row: Row) -> None:  # noqa: ARG001
    named = getattr(row.load(), "signals", None)
    assert named is None or {signal.word for signal in named} == set(row.signals)


@every_component
def test_what_is_built_does_its_part(kind: Kind, name: str, row: Row) -> None:  # noqa: ARG001
    wanted = {
        "receivers": [{"start", "stop"}],
        "processors": [{"attributes", "process"}],
        "exporters": [{"deliver", "close"}],
        "extensions": [set[str]()],
    }[kind]
    has = set(dir(row.load()))
    assert not row.built or any(methods <= has for methods in wanted)


# -- third parties -----------------------------------------------------------------------------------------------------


class Stamp:
    """A third party's processor."""

    class Config(Settings):
        """Its settings."""

        text: str = "x"
        """A text."""


class Fake(Distribution):
    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def read_text(self, filename: str) -> str | None:  # noqa: ARG002  as in the base
        return None

    def locate_file(self, path: Any) -> Any:
        return path


def entry(name: str, value: str, distribution: str = "otel-pipeline-stamp") -> EntryPoint:
    point = EntryPoint(name, value, ENTRY_POINTS)
    vars(point)["dist"] = Fake(distribution)
    return point


def load_with(point: EntryPoint, *more: EntryPoint, settings: str = "") -> Any:
    sources = [
        "yaml:receivers: {otlp: }",
        "yaml:exporters: {debug: }",
        f"yaml:processors: {{{point.name}: {settings}}}",
        f"yaml:service::pipelines::logs: {{receivers: [otlp], processors: [{point.name}], exporters: [debug]}}",
    ]
    return load(sources, installed([point, *more]))


def test_a_third_partys_processor_is_found_by_its_entry_point() -> None:
    config = load_with(entry("stamp", f"{__name__}:Stamp"), settings="{text: y}")
    assert config.processors["stamp"].component is Stamp
    assert config.processors["stamp"].config == Stamp.Config(text="y")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no_such_module:X", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{__name__}:Absent", "cannot be imported: AttributeError"),
        (f"{__name__}:Fake", "is no class with a nested Config that is a contracts.Settings"),
    ],
)
def test_an_entry_point_that_is_of_no_use_is_a_mistake_that_names_the_distribution(value: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_with(entry("stamp", value))
    assert len(caught.value.mistakes) == 1
    expected = "processors.stamp: the component of the distribution otel-pipeline-stamp"
    assert caught.value.mistakes[0].startswith(expected)
    assert problem in caught.value.mistakes[0]


@pytest.mark.parametrize("name", ["batch", "filter"])
def test_a_built_in_name_cannot_be_taken(name: str) -> None:
    registry = installed([entry(name, f"{__name__}:Stamp")])
    assert registry.rows["processors"][name] is TABLE["processors"][name]
    expected = f"the processor {name} of the distribution otel-pipeline-stamp is left out: the name is built in"
    assert registry.warnings == (expected,)


def test_a_name_that_two_distributions_offer_is_a_mistake_when_used() -> None:
    points = (entry("stamp", f"{__name__}:Stamp", "a"), entry("stamp", f"{__name__}:Stamp", "b"))
    with pytest.raises(ConfigError, match="two distributions offer this name: a and b"):
        load_with(*points)


# -- configurations ----------------------------------------------------------------------------------------------------

A_COLLECTORS = """
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: ${env:MY_POD_IP:-127.0.0.1}:4317
        max_recv_msg_size_mib: 16
        keepalive: {server_parameters: {max_connection_age: 60s}}
      http:
        endpoint: ${env:MY_POD_IP:-127.0.0.1}:4318
        cors: {allowed_origins: ["https://*.example.com"]}
processors:
  memory_limiter: {check_interval: 5s, limit_percentage: 80, spike_limit_percentage: 25}
  batch: {send_batch_size: 8192, timeout: 200ms, send_batch_max_size: 10000}
  resource/env:
    attributes:
      - {key: deployment.environment.name, value: "${env:DEPLOYMENT:-production}", action: upsert}
      - {key: k8s.pod.uid, action: delete}
  attributes/scrub:
    actions:
      - {key: http.request.header.authorization, action: delete}
      - {key: team, from_attribute: owner, action: insert}
  filter/health:
    error_mode: ignore
    traces:
      span: ['attributes["http.route"] == "/healthz"']
exporters:
  otlp/jaeger:
    endpoint: jaeger:4317
    tls: {insecure: true}
    sending_queue: {enabled: true, num_consumers: 4, queue_size: 1000}
    retry_on_failure: {enabled: true, initial_interval: 1s, max_interval: 10s, max_elapsed_time: 5m}
  otlphttp/vendor:
    endpoint: https://otlp.example.com
    compression: gzip
    headers: {api-key: "${env:VENDOR_KEY:-0123}"}
    timeout: 10s
  file: {path: /var/log/traces.json, rotation: {max_megabytes: 10, max_backups: 3}, flush_interval: 1s}
  debug: {verbosity: detailed, sampling_initial: 5, sampling_thereafter: 200}
  prometheus: {endpoint: "127.0.0.1:8889", namespace: gateway, send_timestamps: true, metric_expiration: 180m}
extensions:
  health_check: {endpoint: "${env:MY_POD_IP:-127.0.0.1}:13133"}
service:
  extensions: [health_check]
  telemetry:
    logs: {level: info, encoding: json}
    metrics:
      level: detailed
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: 8888, without_type_suffix: true}}}}]
    resource: {service.instance.id: gateway-1}
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, resource/env, attributes/scrub, filter/health, batch]
      exporters: [otlp/jaeger, otlphttp/vendor, file, debug]
    metrics:
      receivers: [otlp]
      processors: [memory_limiter, resource/env, batch]
      exporters: [prometheus, otlphttp/vendor]
    logs:
      receivers: [otlp]
      processors: [memory_limiter, attributes/scrub, batch]
      exporters: [otlphttp/vendor, debug]
"""


def test_a_collectors_configuration_loads_unchanged() -> None:
    config = load([f"yaml:{A_COLLECTORS}"], environ={})
    assert len(config.pipelines["traces"].exporters) == 4
    assert config.exporters["otlphttp/vendor"].config.headers["api-key"].get_secret_value() == "0123"
    assert all("accepted without effect" in warning for warning in config.warnings)


@pytest.mark.parametrize(
    "file", ["otel_pipeline/config/default.yaml", "collector-config/gateway.yaml", "collector-config/minimal.yaml"]
)
def test_our_configurations_load_without_a_warning(file: str) -> None:
    config = load([str(ROOT / file)], environ={})
    assert set(config.pipelines) == WORDS
    assert config.warnings == []


def generator() -> ModuleType:
    loader = SourceFileLoader("generate_config_reference", str(ROOT / "scripts/generate-config-reference"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date() -> None:
    """If not: run scripts/generate-config-reference."""
    text = (ROOT / "collector-config/gateway.yaml").read_text(encoding="utf-8")
    assert text == generator().reference()


@every_component
def test_the_reference_has_every_setting(kind: Kind, name: str, row: Row) -> None:
    text = (ROOT / "collector-config/gateway.yaml").read_text(encoding="utf-8")
    section = text.split(f"\n{kind}:\n")[1].split(f"\n  {name}:\n")[1].split("\n  # ")[0]
    missing = [key for model in models(row.load().Config) for key in keys_of(model) if f" {key}:" not in section]
    assert missing == []


@pytest.mark.parametrize("model", [OutboxConfig, TelemetryConfig])
def test_the_reference_has_every_setting_of_the_gateway_itself(model: type[Settings]) -> None:
    text = (ROOT / "collector-config/gateway.yaml").read_text(encoding="utf-8").split("\noutbox:\n")[1]
    assert not [key for each in models(model) for key in keys_of(each) if f" {key}:" not in text]
