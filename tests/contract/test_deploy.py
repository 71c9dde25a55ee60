"""The image, the compose file and the configurations deployed with them, checked without a container engine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_pipeline.config.loader import GatewayConfig, load
from otel_pipeline.endpoints import split_endpoint

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
IMAGE_CONFIG = ROOT / "deploy/docker/config.yaml"
COMPOSE = ROOT / "deploy/compose/compose.yaml"
PEERS = Path(os.environ.get("OTEL_PIPELINE_PEERS", ROOT / ".cache/peers")) / "bin"


def run(*command: str | Path) -> tuple[int, str]:
    """Exit code and everything that was said."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=60, cwd=ROOT)
    return done.returncode, (done.stdout + done.stderr).decode()


def tool(name: str) -> str:
    """A program beside the interpreter, among the peers or on PATH. Where it is missing CI fails, others skip."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), str(PEERS), os.environ["PATH"]]))
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is missing; scripts/install-peers or the extra `dev` brings it")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# -- the image ---------------------------------------------------------------------------------------------------------


def instructions(stage: str = "") -> Iterator[tuple[str, str]]:
    """Keyword and the rest of each instruction, comments and line breaks removed; of one stage, or of all."""
    lines = [line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    current = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "FROM":
            current = rest.split(" AS ")[1]
        if keyword and stage in ("", current):
            yield keyword, rest.strip()


def last_stage() -> dict[str, str]:
    return dict(instructions("gateway"))


def test_hadolint_finds_nothing() -> None:
    assert run(tool("hadolint"), DOCKERFILE) == (0, "")


def test_the_gateway_is_what_is_built_without_a_target() -> None:
    assert [rest for keyword, rest in instructions() if keyword == "FROM"][-1].endswith(" AS gateway")


def test_base_images_name_a_version() -> None:
    stages = [rest.split(" AS ") for keyword, rest in instructions() if keyword == "FROM"]
    names = {name for _, name in stages}
    assert all(base in names or base.startswith("python:3.11-") for base, _ in stages)


@pytest.mark.parametrize("stage", ["gateway", "worker"])
def test_nothing_runs_as_root(stage: str) -> None:
    assert dict(instructions(stage))["USER"] == "10001:10001"


def test_the_image_has_a_health_check_and_an_entry_point() -> None:
    stage = last_stage()
    assert stage["HEALTHCHECK"].endswith('CMD ["otel-pipeline", "healthcheck"]')
    assert stage["ENTRYPOINT"] == '["otel-pipeline"]'
    assert stage["CMD"] == '["gateway", "--config", "/etc/otel-pipeline/config.yaml"]'
    assert stage["COPY"].split() == ["deploy/docker/config.yaml", "/etc/otel-pipeline/config.yaml"]


def test_the_data_directory_is_the_volume() -> None:
    assert last_stage()["ENV"] == "OTEL_PIPELINE_DATA_DIR=/var/lib/otel-pipeline"
    assert last_stage()["VOLUME"] == '["/var/lib/otel-pipeline"]'


def test_the_build_fails_without_the_compiled_kernel() -> None:
    assert any(rest.startswith("OTEL_PIPELINE_REQUIRE_EXTENSIONS=1 ") for _, rest in instructions("build"))


def copied() -> list[str]:
    """What COPY takes from the repository."""
    found = []
    for keyword, rest in instructions():
        if keyword == "COPY" and not rest.startswith("--from"):
            found += shlex.split(rest)[:-1]
    return found


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert set(copied()) == allowed


def endpoints(config: GatewayConfig) -> list[str]:
    """Every address on which a gateway listens."""
    protocols = config.receivers["otlp"].config.protocols
    return [
        protocols.grpc.endpoint,
        protocols.http.endpoint,
        config.exporters["prometheus"].config.endpoint,
        config.extensions["health_check"].config.endpoint,
        config.telemetry.metrics_address or "",
    ]


def test_the_image_listens_on_every_interface_and_exposes_each_port() -> None:
    addresses = [split_endpoint(endpoint) for endpoint in endpoints(load([str(IMAGE_CONFIG)], environ={}))]
    assert {host for host, _ in addresses} == {"0.0.0.0"}  # noqa: S104
    assert sorted(port for _, port in addresses) == sorted(int(port) for port in last_stage()["EXPOSE"].split())


# -- configurations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["deploy/docker/config.yaml", "collector-config/minimal.yaml", "collector-config/gateway.yaml"]
)
def test_a_configuration_loads_without_a_warning(file: str) -> None:
    assert load([str(ROOT / file)], environ={}).warnings == []


def test_the_images_variables_choose_the_exporters() -> None:
    environ = {
        "OTEL_PIPELINE_BACKEND": "jaeger:4317",
        "OTEL_PIPELINE_BACKEND_INSECURE": "false",
        "OTEL_PIPELINE_TRACE_EXPORTERS": "[otlp]",
        "OTEL_PIPELINE_METRIC_EXPORTERS": "[prometheus, otlp]",
        "OTEL_PIPELINE_LOG_EXPORTERS": "[otlp]",
    }
    config = load([str(IMAGE_CONFIG)], environ=environ)
    assert {name: one.exporters for name, one in config.pipelines.items()} == {
        "traces": ("otlp",),
        "metrics": ("prometheus", "otlp"),
        "logs": ("otlp",),
    }
    assert (config.exporters["otlp"].config.endpoint, config.exporters["otlp"].config.tls.insecure) == (
        "jaeger:4317",
        False,
    )


def test_the_real_collector_accepts_the_configuration_that_forwards_to_us() -> None:
    assert run(tool("otelcol"), "validate", "--config", "collector-config/otelcol-forward.yaml") == (0, "")


def test_promtool_accepts_the_scrape_configuration() -> None:
    code, said = run(tool("promtool"), "check", "config", "deploy/prometheus/prometheus.yml")
    assert code == 0, said


def test_prometheus_scrapes_both_ports_and_keeps_the_labels_of_received_metrics() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))["scrape_configs"]
    honored = {job["static_configs"][0]["targets"][0]: job.get("honor_labels", False) for job in jobs}
    assert honored == {"gateway:8888": False, "gateway:8889": True}


# -- compose -----------------------------------------------------------------------------------------------------------

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_the_compose_file_follows_its_schema() -> None:
    code, said = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert code == 0, said


@every_service
def test_a_service_is_locked_down(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@every_service
def test_an_image_that_is_not_built_here_names_a_version(service: dict[str, Any]) -> None:
    version = service["image"].rpartition(":")[2]
    assert "build" in service or version.removeprefix("v")[0].isdigit()


@every_service
def test_what_is_built_and_mounted_exists(service: dict[str, Any]) -> None:
    build = service.get("build")
    if build:
        context = COMPOSE.parent / build["context"]
        assert (context / build["dockerfile"]).resolve() == DOCKERFILE
        assert list(instructions(build["target"]))
    mounted = [volume.split(":")[0] for volume in service.get("volumes", [])]
    assert [path for path in mounted if path.startswith(".") and not (COMPOSE.parent / path).exists()] == []


@every_service
def test_a_command_names_a_module_that_exists(service: dict[str, Any]) -> None:
    command = service.get("command", [])
    modules = [after for word, after in pairwise(command) if word == "-m"]
    assert all(module.startswith("otel_pipeline.demo.") and find_spec(module) for module in modules)
    assert modules or "python" not in command


@every_service
def test_who_waits_for_a_service_waits_for_its_health(service: dict[str, Any]) -> None:
    for name, wait in service.get("depends_on", {}).items():
        assert wait["condition"] == "service_healthy"
        assert "healthcheck" in SERVICES[name] or SERVICES[name].get("build", {}).get("target") == "gateway"


def test_the_gateways_settings_in_compose_are_variables_of_the_image() -> None:
    text = IMAGE_CONFIG.read_text("utf-8")
    assert [name for name in SERVICES["gateway"]["environment"] if f"${{env:{name}:-" not in text] == []
