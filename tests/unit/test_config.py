"""A configuration as a whole: typed settings, every mistake at once with its path, and printing it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_pipeline.config import yaml_text
from otel_pipeline.config.dump import dumped
from otel_pipeline.config.loader import OutboxConfig, default_config
from otel_pipeline.errors import ConfigError
from otel_pipeline.settings import REDACTED
from otel_pipeline.wire.signal import Signal
from tests.unit.config_fakes import BASE, Backend, Rules, loaded, mistakes


def test_an_empty_configuration_is_a_mistake() -> None:
    assert mistakes("") == ["the configuration is empty; needed: receivers, exporters, service.pipelines"]


def test_a_configuration_that_contains_itself_ends() -> None:
    with pytest.raises(ConfigError, match="nested too deep"):
        loaded("receivers: &a [*a]")


def test_components_and_pipelines_come_out_typed() -> None:
    config = loaded(
        BASE,
        "processors: {rules/a: , rules/b: }",
        "exporters: {backend_grpc/x: }",
        "service::pipelines::logs: {receivers: [door], processors: [rules/b, rules/a], exporters: [backend_grpc/x]}",
    )
    assert config.exporters["backend_grpc/x"].type == "backend"
    assert config.exporters["backend_grpc/x"].component is Backend
    assert config.pipelines["traces"].signal is Signal.TRACES
    assert config.pipelines["logs"].processors == ("rules/b", "rules/a")
    assert config.warnings == []


def test_blanks_around_an_id_do_not_matter() -> None:
    config = loaded(
        BASE, "processors: {'rules / a': {text: '${T}'}}", "service::pipelines::traces::processors: [' rules/a']", T="5"
    )
    assert config.processors["rules/a"].config.text == "5"
    assert config.pipelines["traces"].processors == ("rules/a",)


def test_a_component_that_no_pipeline_names_is_validated_all_the_same() -> None:
    assert loaded(BASE, "processors: {rules: }").processors["rules"].config == Rules.Config()
    assert mistakes(BASE, "processors: {rules: {limit: x}}")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("recievers: {}", "recievers: unknown key; allowed: connectors, exporters, extensions, outbox"),
        ("receivers: 5", "receivers: must be a map"),
        ("processors: {rulez: }", "processors.rulez: unknown type; allowed: absent, metric_rules"),
        ("processors: {rulez: }", "did you mean rules?"),
        ("processors: {rules/: }", "processors.rules/: is no id; there must be a name behind the slash"),
        ("processors: {rules/a b: }", "processors.rules/a b: is no id; the name behind the slash has no blanks"),
        ("processors: {1rules: }", "processors.1rules: is no id; the type has letters, digits and _"),
        (f"processors: {{? rules/{'x' * 1025} : }}", "is no id; the name behind the slash has at most 1024 characters"),
        ("processors: {rules/a: , 'rules / a': }", "processors.rules / a: the id rules/a stands twice"),
        ("processors: {absent: }", "processors.absent: the component cannot be imported: ModuleNotFoundError"),
        ("processors: {no_config: }", "is no class with a nested Config"),
        ("connectors: {spanmetrics: }", "connectors.spanmetrics: there are no connectors; instead of spanmetrics"),
        ("service: {pipeline: }", "service.pipeline: unknown key; allowed: extensions, pipelines, telemetry"),
        ("service: {extensions: [zpages]}", "service.extensions[0]: zpages is not configured in extensions"),
        ("service: {extensions: zpages}", "service.extensions: must be a list of ids of extensions"),
        ("service::pipelines::profiles: {}", "service.pipelines.profiles: unknown signal; allowed: logs, metrics"),
        ("service::pipelines::traces/: {}", "service.pipelines.traces/: is no id"),
        ("service::pipelines::traces: 5", "service.pipelines.traces: must be a map"),
        ("service::pipelines::traces::exporter: [x]", "service.pipelines.traces.exporter: unknown key; allowed:"),
        ("service::pipelines::traces::receivers: []", "service.pipelines.traces.receivers: at least one of"),
        ("service::pipelines::traces::exporters: ", "service.pipelines.traces.exporters: at least one of"),
        ("service::pipelines::traces::processors: [x]", "service.pipelines.traces.processors[0]: x is not"),
        ("service::pipelines::traces::processors: [5]", "service.pipelines.traces.processors: must be a list of ids"),
        ("service: 5", "service: must be a map"),
        ("service::pipelines: ", "service.pipelines: at least one pipeline is needed"),
        ("service::telemetry::logs::level: loud", "service.telemetry.logs.level: 'loud' is not allowed"),
        ("service::telemetry::metrix: ", "service.telemetry.metrix: unknown key; allowed: logs, metrics, resource"),
        ("service::telemetry::resource: {attributes: [a]}", "service.telemetry.resource: attributes must be a list of"),
        ("outbox: {sync: on}", "outbox.sync: 'on' is not allowed; allowed: 'interval', 'always' or 'off'"),
        ("outbox: {max_size_mib: 0}", "outbox.max_size_mib: must be greater than or equal to 16, not 0"),
    ],
)
def test_mistakes_of_the_whole_have_their_path_and_what_is_allowed(text: str, mistake: str) -> None:
    assert any(mistake in found for found in mistakes(BASE, text))


def test_every_mistake_is_told_at_once() -> None:
    found = mistakes(
        """
receivers: {door: {grpc: {endpoint: x, tls: {cert_file: a}}}, dor: }
processors: {rules: {limit: x, rules: [{}]}}
exporters: {backend: {port: x}}
service: {pipelines: {traces: {receivers: [door, door/x], exporters: []}, trace: }, telemetry: {x: }}
outbox: {x: }
"""
    )
    assert [text.split(": ")[0] for text in found] == [
        "receivers.door.grpc.endpoint",
        "receivers.door.grpc.tls.key_file",
        "receivers.dor",
        "processors.rules.rules[0].key",
        "processors.rules.limit",
        "exporters.backend.port",
        "service.pipelines.traces.receivers[1]",
        "service.pipelines.traces.exporters",
        "service.pipelines.trace",
        "service.telemetry.x",
        "outbox.x",
    ]


@pytest.mark.parametrize(("name", "allowed"), [("metric_rules", "metrics"), ("traces_only", "traces")])
def test_a_component_stands_only_in_pipelines_of_its_signals(name: str, allowed: str) -> None:
    pipeline = f"{{receivers: [door], processors: [{name}], exporters: [backend]}}"
    found = mistakes(BASE, f"processors: {{{name}: }}", f"service::pipelines::logs: {pipeline}")
    assert found == [f"service.pipelines.logs.processors[0]: {name} takes no logs; allowed: {allowed}"]


def test_a_processor_stands_once_in_a_pipeline() -> None:
    found = mistakes(BASE, "{processors: {rules: }, service: {pipelines: {traces: {processors: [rules, rules]}}}}")
    assert found == ["service.pipelines.traces.processors[1]: rules stands twice in the pipeline; allowed: once"]


def test_a_receiver_or_exporter_that_stands_twice_is_taken_once() -> None:
    config = loaded(BASE, "service::pipelines::traces::exporters: [backend, backend]")
    assert config.pipelines["traces"].exporters == ("backend",)
    assert config.warnings == ["service.pipelines.traces.exporters[1]: backend stands twice, once is enough"]


def test_without_a_configuration_the_default_is_taken_and_may_be_overridden() -> None:
    config = default_config(["yaml:outbox: {sync: always}"])
    assert config.receivers["otlp"].config.protocols.grpc.endpoint == "127.0.0.1:4317"
    assert config.outbox.sync == "always"


def test_extensions_are_started_when_the_service_names_them() -> None:
    config = loaded(BASE, "{extensions: {door: , door/b: }, service: {extensions: [door/b]}}")
    assert set(config.extensions) == {"door", "door/b"}
    assert config.service_extensions == ("door/b",)


def test_the_outbox_has_its_defaults_and_its_directory() -> None:
    outbox = loaded(BASE).outbox
    assert (outbox.sync, outbox.sync_interval, outbox.max_size_mib) == ("interval", 1.0, 4096)
    assert outbox.path(Path("/data")) == Path("/data/outbox")
    assert OutboxConfig.model_validate({"directory": "/x"}).path(Path("/data")) == Path("/x")


@pytest.mark.parametrize(
    ("metrics", "address"),
    [
        ("{}", "127.0.0.1:8888"),
        ("{level: None}", None),
        ("{level: Detailed}", "127.0.0.1:8888"),
        ("{address: ':9999'}", ":9999"),
        ("{readers: []}", None),
        ("{readers: [{pull: {exporter: {prometheus: {host: 0.0.0.0, port: 1}}}}]}", "0.0.0.0:1"),
        ("{readers: [{pull: {exporter: {prometheus: {host: '::1'}}}}]}", "[::1]:8888"),
        ("{readers: [{periodic: {exporter: {otlp: {}}}}]}", None),
    ],
)
def test_own_metrics_are_served_where_the_telemetry_section_says(metrics: str, address: str | None) -> None:
    assert loaded(BASE, f"service: {{telemetry: {{metrics: {metrics}}}}}").telemetry.metrics_address == address


@pytest.mark.parametrize(
    "resource", ["{a: b, c: }", "{attributes: [{name: a, value: b}, {name: c, value: }], schema_url: x}"]
)
def test_the_resource_of_own_telemetry_has_both_forms_of_the_collector(resource: str) -> None:
    telemetry = loaded(BASE, f"service: {{telemetry: {{resource: {resource}}}}}").telemetry
    assert telemetry.resource == {"a": "b", "c": None}


# -- printing ----------------------------------------------------------------------------------------------------------


def test_a_printed_configuration_hides_secrets() -> None:
    config = loaded(
        BASE,
        "exporters: {backend: {key: s3cret, headers: {a: s3cret}}}",
        "processors: {rules: {text: 'http://u:s3cret@h/'}}",
    )
    printed = yaml_text.dump(dumped(config, reveal=False))
    assert "s3cret" not in printed
    assert printed.count(REDACTED) == 3


def test_an_unredacted_configuration_reads_back_as_the_same() -> None:
    settings = "{key: 'p$$w', headers: {a: '${S}'}, timeout: 1m30s, tls: {insecure: true}}"
    config = loaded(
        BASE, f"exporters: {{backend: {settings}}}", "processors: {rules: {color: blue, rules: [{key: '1'}]}}", S="$$x"
    )
    assert config.processors["rules"].config.color.value == "blue"
    again = loaded(yaml_text.dump(dumped(config, reveal=True)))
    assert again == config
    assert config.exporters["backend"].config.key.get_secret_value() == "p$w"
