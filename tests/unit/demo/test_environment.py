"""What the demo's processes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_pipeline.config.loader import load
from otel_pipeline.demo.environment import PORTS, Environment
from otel_pipeline.demo.gpus import BUSY_ID, NAME
from otel_pipeline.ledger.price_book import subject
from otel_pipeline.ledger.price_file import book_of
from otel_pipeline.ledger.price_rows import Basis
from otel_pipeline.processors.cost import CostProcessor


def environment(folder: Path, jaeger: str | None = None) -> Environment:
    return Environment(folder, PORTS, "opentelemetry-instrument", jaeger)


def test_settings_of_the_caller_that_point_elsewhere_do_not_reach_the_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://vendor.example")
    monkeypatch.setenv("OTEL_PIPELINE_SOMETHING", "kept")
    variables = environment(tmp_path).instrumented_variables("video-worker")
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" not in variables
    assert variables["OTEL_PIPELINE_SOMETHING"] == "kept"
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"


@pytest.mark.parametrize(("jaeger", "exporters"), [(None, "[file]"), ("/bin/jaeger", "[file, otlp/jaeger]")])
def test_traces_go_to_jaeger_only_if_there_is_one(jaeger: str | None, exporters: str, tmp_path: Path) -> None:
    assert environment(tmp_path, jaeger).variables()["OTEL_PIPELINE_DEMO_TRACE_EXPORTERS"] == exporters


def test_a_command_beside_the_gateway_needs_none_of_its_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    folder = tmp_path / "of $5"
    folder.mkdir()
    environment(folder).gateway_command()
    config = load([str(folder / "gateway.yaml")])
    [cost] = [one.config for one in config.processors.values() if one.type == "cost"]
    assert isinstance(cost, CostProcessor.Config)
    assert cost.prices == (folder / "prices.yaml",)
    assert book_of(cost.prices).lookup(subject({"gpu": NAME}, {}), 0, frozenset(Basis)).row is not None


def test_the_worker_knows_which_gpu_is_its_own_and_leaves_real_ones_alone(tmp_path: Path) -> None:
    variables = environment(tmp_path).instrumented_variables("video-worker")
    assert variables["OTEL_RESOURCE_ATTRIBUTES"].endswith(f"CUDA_VISIBLE_DEVICES={BUSY_ID}")
    assert variables["OTEL_PIPELINE_GPU_SAMPLING"] == "off"


def test_every_variable_of_the_configurations_is_set(tmp_path: Path) -> None:
    demo = environment(tmp_path, "/bin/jaeger")
    texts = [
        Path(command[-1]).read_text("utf-8") for command in (demo.gateway_command(), demo.jaeger_command("jaeger"))
    ]
    wanted = {part.split(":-")[0] for text in texts for part in text.split("${env:")[1:]}
    assert len(wanted) > 5
    assert wanted <= set(demo.variables())
