"""The commands `gpu` and `agent`, and the agent's configuration."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from click.testing import CliRunner, Result

from otel_pipeline import gpu_commands
from otel_pipeline.commands import command_line
from otel_pipeline.config.loader import load
from otel_pipeline.gpu import journal
from otel_pipeline.gpu.ingest import Block, Device, Samples
from otel_pipeline.gpu.join import Reason
from otel_pipeline.gpu.journal import Incomplete, Journal
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.gpu.resolve import How

ROOT = Path(__file__).parents[2]
NOW_S = 1_800_000_000.0
TRACE = "0102030405060708090a0b0c0d0e0f10"


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(command_line, arguments, env=environ)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gateway's data directory with samples of one GPU, and two spans of one trace that are not complete."""
    monkeypatch.setattr(gpu_commands.time, "time_ns", lambda: int(NOW_S + 1.5) * 10**9)
    times = np.array([int(NOW_S) * 10**9])
    values = {Quantity.UTILIZATION: 0.42, Quantity.MEMORY_USED: 2**33, Quantity.POWER: 301.2, Quantity.ENERGY: 1.5e6}
    blocks = [Block(("pod-1",), "GPU-a", key, times, np.array([float(one)]), "") for key, one in values.items()]
    device = Device(("pod-1",), "GPU-a", 0, "NVIDIA L40S", memory_bytes={"limit": 45.0 * 2**30})
    halves = np.frombuffer(bytes.fromhex(TRACE), ">i8").astype(np.int64)
    ids = np.array([[*halves, 1], [*halves, 2]], np.int64)
    told = [
        {"name": "stage", "status": "ambiguous", "reason": "ambiguous", "hosts": ["pod-1"], "gpus": []},
        {"name": "job", "status": "partial", "reason": "late", "hosts": ["pod-1", "name"], "gpus": ["GPU-a"]},
    ]
    writer = Journal(tmp_path / "components" / "pipelines" / "metrics" / "gpu_stats" / journal.DIRECTORY)
    writer.load(NOW_S)
    writer.write(NOW_S, [Samples(blocks, [device])], [Incomplete(ids, np.array([0, 1]), told)])
    writer.close()
    return tmp_path


def test_the_table_has_a_line_for_each_gpu(data_dir: Path) -> None:
    result = invoke("gpu", "--data-dir", str(data_dir))
    assert result.exit_code == 0, result.output
    line = result.stdout.split("\n")[1]
    assert " ".join(line.split()) == "pod-1 0 GPU-a NVIDIA L40S 42% 8.0 of 45.0 GiB 301 W 1,500.0 kJ 1.0 s"


def test_as_json_the_values_have_base_units(data_dir: Path) -> None:
    (row,) = json.loads(invoke("gpu", "--data-dir", str(data_dir), "--format", "json").stdout)
    assert row == {
        "host": "pod-1",
        "gpu": "GPU-a",
        "index": 0,
        "name": "NVIDIA L40S",
        "utilization": 0.42,
        "memory_used_bytes": 2**33,
        "memory_limit_bytes": 45 * 2**30,
        "power_w": 301.2,
        "energy_j": 1.5e6,
        "age_s": 1.0,
    }


def test_watching_ends_after_the_duration(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(gpu_commands.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(gpu_commands.time, "sleep", sleep)
    result = invoke("gpu", "--data-dir", str(data_dir), "--watch", "2s")
    assert result.stdout.count("pod-1") == 3
    assert invoke("gpu", "--watch", "61m").exit_code == 2
    assert invoke("gpu", "--watch", "soon").exit_code == 2


def test_a_span_is_explained_with_a_remedy(data_dir: Path) -> None:
    result = invoke("gpu", "--data-dir", str(data_dir), "--explain", TRACE)
    assert result.exit_code == 0, result.output
    assert "span 0000000000000001 stage: ambiguous\n  why: its host has several GPUs" in result.stdout
    assert "CUDA_VISIBLE_DEVICES" in result.stdout
    assert "host: pod-1, name; GPUs: GPU-a" in result.stdout
    rows = json.loads(invoke("gpu", "--data-dir", str(data_dir), "--explain", TRACE, "--format", "json").stdout)
    assert [(row["span_id"], row["reason"]) for row in rows] == [(f"{1:016x}", "ambiguous"), (f"{2:016x}", "late")]


def test_of_a_trace_that_is_not_known_it_says_so(data_dir: Path) -> None:
    result = invoke("gpu", "--data-dir", str(data_dir), "--explain", TRACE[::-1])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"nothing is known of the trace {TRACE[::-1]}")
    assert "Samples come from: pod-1" in result.stderr


@pytest.mark.parametrize("wrong", ["12", "g" * 32, ""])
def test_what_is_no_trace_id_is_refused(wrong: str) -> None:
    result = invoke("gpu", "--explain", wrong)
    assert result.exit_code == 2
    assert "32 hexadecimal digits" in result.stderr


def test_every_reason_has_words_and_a_remedy() -> None:
    reasons = {reason.name.lower() for reason in Reason if reason} | {How.AMBIGUOUS.value, How.NONE.value}
    assert set(gpu_commands.WHY) == reasons


def test_without_samples_one_line_says_where_they_were_looked_for(tmp_path: Path) -> None:
    result = invoke("gpu", XDG_STATE_HOME=str(tmp_path), STATE_DIRECTORY="", OTEL_PIPELINE_DATA_DIR="")
    assert result.exit_code == 1
    assert result.stderr == (
        f"otel-pipeline: no GPU samples below {tmp_path}/otel-pipeline and {tmp_path}/otel-pipeline-agent: "
        "no gateway or agent with gpu_stats keeps its data there (--data-dir)\n"
    )


def test_a_journal_that_cannot_be_read_is_one_line(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise lmdb.Error("no room")

    monkeypatch.setattr(journal, "latest", broken)
    monkeypatch.setattr(journal, "explained", broken)
    for arguments in ((), ("--explain", TRACE)):
        result = invoke("gpu", "--data-dir", str(data_dir), *arguments)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert result.stderr.endswith("cannot be read: no room\n")


# -- agent -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the gateway is called with; it ends at once with exit code 3."""
    calls: list[Any] = []
    fake = types.ModuleType("otel_pipeline.gateway")
    fake.run = lambda config, data_dir: calls.append((config, data_dir)) or 3  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "otel_pipeline.gateway", fake)
    return calls


def test_the_agent_is_a_gateway_with_another_configuration_and_directory(runs: list[Any], tmp_path: Path) -> None:
    result = invoke(
        "agent", XDG_STATE_HOME=str(tmp_path), STATE_DIRECTORY="", OTEL_PIPELINE_GATEWAY="gateway.example:4317"
    )
    assert result.exit_code == 3, result.output
    [(config, data_dir)] = runs
    assert data_dir == tmp_path / "otel-pipeline-agent"
    assert config.exporters["otlp"].config.endpoint == "gateway.example:4317"
    assert config.pipelines["metrics"].receivers == ("otlp", "nvml")


def test_the_agent_takes_another_configuration_and_settings_over_it(runs: list[Any]) -> None:
    minimal = str(ROOT / "collector-config" / "minimal.yaml")
    assert invoke("agent", "--config", minimal, "--set", "outbox.sync=always", "--data-dir", "x").exit_code == 3
    [(config, data_dir)] = runs
    assert (set(config.receivers), config.outbox.sync, data_dir) == ({"otlp"}, "always", Path("x"))


def test_the_agents_configuration_joins_on_loopback_and_has_no_warning() -> None:
    config = load([str(ROOT / "collector-config" / "agent.yaml")], environ={})
    assert config.warnings == []
    protocols = config.receivers["otlp"].config.protocols
    assert (protocols.grpc.endpoint, protocols.http.endpoint) == ("127.0.0.1:4317", "127.0.0.1:4318")
    assert {name: one.processors for name, one in config.pipelines.items()} == {
        "traces": ("gpu_stats",),
        "metrics": ("gpu_stats",),
        "logs": (),
    }
    assert config.exporters["otlp"].config.endpoint == "127.0.0.1:14317"


def test_the_agents_configuration_is_one_text_in_two_places() -> None:
    shown, shipped = ROOT / "collector-config" / "agent.yaml", ROOT / "otel_pipeline" / "config" / "agent.yaml"
    assert shown.read_bytes() == shipped.read_bytes()
