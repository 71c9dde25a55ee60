"""The command line: what each command prints, its exit code, and what a user sees when something is missing."""

from __future__ import annotations

import builtins
import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # the library has no types of its own
from click.testing import CliRunner, Result

from otel_pipeline import __version__, cli
from otel_pipeline.commands import command_line
from otel_pipeline.errors import OutboxError

WITH_KEY = "exporters: {otlp: {headers: {api-key: s3cret}}}"


def invoke(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(command_line, arguments, env=environ)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a module with some attributes in the place of a real one."""

    def put(name: str, **attributes: object) -> None:
        fake = types.ModuleType(name)
        vars(fake).update(attributes)
        monkeypatch.setitem(sys.modules, name, fake)

    return put


@pytest.fixture
def runs(module: Callable[..., None]) -> list[Any]:
    """What the gateway is called with; it ends at once with exit code 3."""
    calls: list[Any] = []

    def run(config: object, data_dir: Path) -> int:
        calls.append((config, data_dir))
        return 3

    module("otel_pipeline.gateway", run=run)
    return calls


def test_version_is_told() -> None:
    assert __version__ in invoke("--version").output


# -- gateway -----------------------------------------------------------------------------------------------------------


def test_gateway_runs_with_the_configuration_and_ends_with_its_exit_code(runs: list[Any], tmp_path: Path) -> None:
    result = invoke("gateway", "--data-dir", str(tmp_path), "--set", "exporters.debug.verbosity=detailed")
    assert result.exit_code == 3, result.output
    config, data_dir = runs[0]
    assert config.exporters["debug"].config.verbosity == "detailed"
    assert data_dir == tmp_path


@pytest.mark.parametrize("arguments", [(), ("run",), ("gateway",)])
def test_gateway_without_configuration_takes_the_default(runs: list[Any], arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments).exit_code == 3
    assert set(runs[0][0].pipelines) == {"traces", "metrics", "logs"}


@pytest.mark.parametrize(
    ("environ", "data_dir"),
    [
        ({"OTEL_PIPELINE_DATA_DIR": "/d", "STATE_DIRECTORY": "/s"}, "/d"),
        ({"STATE_DIRECTORY": "/s:/t", "XDG_STATE_HOME": "/x"}, "/s"),
        ({"XDG_STATE_HOME": "/x"}, "/x/otel-pipeline"),
        ({"HOME": "/h"}, "/h/.local/state/otel-pipeline"),
    ],
)
def test_data_directory(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], data_dir: str
) -> None:
    for name in ("OTEL_PIPELINE_DATA_DIR", "STATE_DIRECTORY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    invoke(**environ)
    assert runs[0][1] == Path(data_dir)


def test_a_wrong_configuration_is_told_line_by_line_and_starts_nothing(runs: list[Any]) -> None:
    result = invoke("gateway", "--set", "exporters.debug.verbosty=x", "--set", "outbox.sync=on")
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == ["exporters.debug.verbosty", "outbox.sync"]
    assert not runs


# -- validate, print-config, components --------------------------------------------------------------------------------


def test_validate_tells_that_a_configuration_is_valid_and_its_warnings(tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text("processors: {batch: {metadata_keys: [a]}}")
    result = invoke("validate", "--config", "yaml:" + default_text(), "--config", str(file))
    assert result.exit_code == 0, result.output
    assert result.stdout == "The configuration is valid: traces, metrics, logs.\n"
    assert result.stderr.startswith("warning: processors.batch: metadata_keys: accepted without effect")


def test_validate_ends_with_1_for_mistakes() -> None:
    result = invoke("validate", "--config", "nowhere.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "nowhere.yaml: cannot be read: No such file or directory\n"


def test_print_config_hides_secrets_unless_told_otherwise() -> None:
    sources = (
        "--config",
        "yaml:" + default_text(),
        "--config",
        f"yaml:{WITH_KEY}",
        "--set",
        "exporters.otlp.endpoint=a:1",
    )
    hidden, shown = invoke("print-config", *sources), invoke("print-config", *sources, "--mode", "unredacted")
    assert "s3cret" not in hidden.output
    assert yaml.safe_load(hidden.stdout)["exporters"]["otlp"]["headers"] == {"api-key": "[REDACTED]"}
    assert yaml.safe_load(shown.stdout)["exporters"]["otlp"]["headers"] == {"api-key": "s3cret"}


def test_print_config_prints_what_loads_again() -> None:
    printed = invoke("print-config", "--mode", "unredacted").stdout
    again = invoke("print-config", "--mode", "unredacted", "--format", "json", "--config", f"yaml:{printed}").stdout
    assert json.loads(again) == yaml.safe_load(printed)


def test_components_are_listed_as_table_and_json() -> None:
    rows = json.loads(invoke("components", "--format", "json").stdout)
    otlp = next(row for row in rows if (row["kind"], row["name"]) == ("exporters", "otlp"))
    assert (otlp["aliases"], otlp["signals"]) == (["otlp_grpc"], ["traces", "metrics", "logs"])
    table = invoke("components").stdout
    assert all(row["name"] in table for row in rows)


# -- healthcheck -------------------------------------------------------------------------------------------------------


def test_healthcheck_needs_an_endpoint() -> None:
    result = invoke("healthcheck", "--endpoint", "http://x")
    assert result.exit_code == 2
    assert "has a scheme; allowed: host:port" in result.stderr


# -- queue and demo ----------------------------------------------------------------------------------------------------


@dataclass
class QueueRow:
    pipeline: str
    exporter: str
    batches: int
    oldest_age_s: float


def test_queue_shows_whatever_the_rows_have(module: Callable[..., None], tmp_path: Path) -> None:
    asked: list[Path] = []

    def inspect(directory: Path) -> list[QueueRow]:
        asked.append(directory)
        return [QueueRow("traces", "otlp[b]", 5, 1.5)]

    module("otel_pipeline.outbox_state", inspect=inspect)
    as_json = invoke("queue", "--format", "json", "--data-dir", str(tmp_path))
    assert json.loads(as_json.stdout) == [
        {"pipeline": "traces", "exporter": "otlp[b]", "batches": 5, "oldest_age_s": 1.5}
    ]
    table = invoke("queue", "--set", f"outbox.directory={tmp_path}/elsewhere").stdout.splitlines()
    assert table[0].split() == ["pipeline", "exporter", "batches", "oldest", "age", "s"]
    assert table[1].split() == ["traces", "otlp[b]", "5", "1.5"]
    assert asked == [tmp_path / "outbox", tmp_path / "elsewhere"]


def test_queue_of_nothing_says_so(module: Callable[..., None], tmp_path: Path) -> None:
    module("otel_pipeline.outbox_state", inspect=lambda _: [])
    assert invoke("queue", "--data-dir", str(tmp_path)).stdout == "nothing\n"


def test_an_outbox_that_cannot_be_read_is_one_line(module: Callable[..., None], tmp_path: Path) -> None:
    def inspect(directory: Path) -> list[QueueRow]:
        raise OutboxError(f"no outbox in {directory.name}")

    module("otel_pipeline.outbox_state", inspect=inspect)
    result = invoke("queue", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.stderr) == (1, "otel-pipeline: no outbox in outbox\n")


def test_demo_is_called_with_its_options(module: Callable[..., None]) -> None:
    calls: list[tuple[int, bool, bool]] = []

    def run(jobs: int, out: object, *, keep_running: bool, keep_data: bool) -> int:
        assert hasattr(out, "print")
        calls.append((jobs, keep_running, keep_data))
        return 4

    module("otel_pipeline.demo.run", run=run)
    assert invoke("demo", "--jobs", "2", "--keep").exit_code == 4
    assert invoke("demo", "--keep-running").exit_code == 4
    assert calls == [(2, False, True), (8, True, False)]


# -- what is not installed ---------------------------------------------------------------------------------------------


def without(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "otel_pipeline.commands", raising=False)
    monkeypatch.setattr(builtins, "__import__", absent)


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_gateway_extra_one_line_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, package)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    expected = f"otel-pipeline: {package} is missing; pip install 'otel-pipeline[gateway]'\n"
    assert capsys.readouterr().err == expected


def test_the_entry_runs_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["anything", "--version"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert capsys.readouterr().out == f"otel-pipeline, version {__version__}\n"


def test_a_module_of_our_own_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "http")
    with pytest.raises(ModuleNotFoundError, match="http"):
        cli.main()


def test_demo_names_the_package_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "otel_pipeline.demo.run", None)
    result = invoke("demo")
    assert result.exit_code == 1
    assert result.stderr.startswith("otel-pipeline: the demo needs ")


def default_text() -> str:
    return (Path(cli.__file__).with_name("config") / "default.yaml").read_text(encoding="utf-8")
