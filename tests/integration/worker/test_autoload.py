from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")
PROGRAM = """
    import subprocess, sys
    from opentelemetry import trace
    provider = trace.get_tracer_provider()
    active = "otel_pipeline.worker.activation" in sys.modules
    ours = [each for each in getattr(getattr(provider, "_active_span_processor", None), "_span_processors", ())
            if type(each).__name__ == "JobAttributes"]
    print(type(provider).__name__, active, len(ours), *sys.argv[1:])
"""
LOADED = "TracerProvider True 1"
NOT_LOADED = "ProxyTracerProvider False 0"


@pytest.fixture(scope="module")
def folder() -> str:
    """The folder that the command prints."""
    command = (sys.executable, "-m", "otel_pipeline.worker.autoload")
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30, cwd=ROOT)
    return printed.stdout.strip()


def run(tmp_path: Path, path: str, *command: str, code: str = PROGRAM, **environment: str) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(code))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON"))}
    off = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
    done = subprocess.run(
        command or (sys.executable, str(program)),
        env={**kept, **off, "PYTHONPATH": path, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_folder_holds_a_sitecustomize(folder: str) -> None:
    assert (Path(folder) / "sitecustomize.py").is_file()


def test_a_process_with_the_folder_on_its_path_is_instrumented(folder: str, tmp_path: Path) -> None:
    assert run(tmp_path, folder) == [LOADED]


def test_its_children_are_too(folder: str, tmp_path: Path) -> None:
    code = PROGRAM + "    len(sys.argv) > 1 or subprocess.run([sys.executable, 'program.py', 'child'])\n"
    assert sorted(run(tmp_path, folder, code=code)) == [LOADED, f"{LOADED} child"]


def test_processes_of_multiprocessing_are_too(folder: str, tmp_path: Path) -> None:
    code = """
        import multiprocessing, sys
        def child():
            from opentelemetry import trace
            print(type(trace.get_tracer_provider()).__name__, flush=True)
        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=child)
            process.start()
            process.join(30)
    """
    assert run(tmp_path, folder, code=code) == ["TracerProvider"]


def test_the_sitecustomize_that_it_hides_runs_first(folder: str, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys\nprint('hidden', 'opentelemetry' in sys.modules)\nvalue = 5\n")
    code = PROGRAM + "    import sitecustomize\n    print(sitecustomize.value)\n"
    assert run(tmp_path, f"{folder}{os.pathsep}{hidden}", code=code) == ["hidden False", LOADED, "5"]


def test_a_hidden_sitecustomize_that_fails_does_not_stop_it(folder: str, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("raise RuntimeError('broken')\n")
    assert run(tmp_path, f"{folder}{os.pathsep}{hidden}") == [LOADED]


@pytest.mark.parametrize("theirs_first", [True, False])
def test_with_opentelemetry_instrument_it_is_loaded_once(
    folder: str,
    tmp_path: Path,
    theirs_first: bool,  # noqa: FBT001
) -> None:
    if theirs_first:
        assert run(tmp_path, folder, str(INSTRUMENT), sys.executable, "program.py", code=PROGRAM) == [LOADED]
        return
    from opentelemetry.instrumentation import auto_instrumentation  # noqa: PLC0415

    theirs = str(Path(auto_instrumentation.__file__).parent)
    assert run(tmp_path, f"{folder}{os.pathsep}{theirs}") == [LOADED]


def test_it_can_be_switched_off(folder: str, tmp_path: Path) -> None:
    assert run(tmp_path, folder, OTEL_SDK_DISABLED="true") == [NOT_LOADED]


def test_pip_is_left_alone(folder: str, tmp_path: Path) -> None:
    command = (sys.executable, "-X", "importtime", "-m", "pip", "--version")
    environment = {**os.environ, "PYTHONPATH": folder}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "sitecustomize" in done.stderr
    assert "opentelemetry" not in done.stderr


def test_an_interpreter_without_opentelemetry_starts_all_the_same(folder: str, tmp_path: Path) -> None:
    """Isolated from site-packages by -S, but with the import that `site` would do."""
    command = (sys.executable, "-S", "-c", "import sitecustomize, sys; print('opentelemetry' in sys.modules)")
    assert run(tmp_path, folder, *command) == ["False"]


def test_the_path_of_the_environment_is_left_as_it_was(folder: str, tmp_path: Path) -> None:
    path = f"{folder}{os.pathsep}/somewhere/else"
    assert run(tmp_path, path, code="import os\nprint(os.environ['PYTHONPATH'])") == [path]
