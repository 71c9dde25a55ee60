from __future__ import annotations

import pytest

from otel_pipeline.worker.autoload import sitecustomize


@pytest.mark.parametrize(
    "line",
    [
        "python -m pip install x",
        "python -mpip install x",
        "python -Im ensurepip --upgrade",
        "python -m venv /tmp/v",
        "python -u -X dev -m build",
        "/usr/bin/python3 /usr/bin/pip install x",
        "python3 /usr/bin/pip3.11 list",
        "python /x/pip/__pip-runner__.py install",
        "python /x/pyproject_hooks/_in_process/_in_process.py prepare",
        "python setup.py build_ext",
        "/usr/bin/python /usr/bin/opentelemetry-instrument python worker.py",
        "python -m opentelemetry.instrumentation.auto_instrumentation python worker.py",
        "python -m otel_pipeline.worker.autoload",
        "python -m otel_pipeline.worker.comfyui.discovery publish",
        "python -m otel_pipeline run",
        "python /usr/bin/otel-pipeline run",
    ],
)
def test_tools_are_left_alone(line: str) -> None:
    assert sitecustomize.is_tool(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "python worker.py pip",
        "python -u main.py --listen",
        "python -m celery -A app worker",
        "python -m otel_pipeline.demo.worker",
        "python -m piper",
        "python -W error -m rq.cli worker",
        "python -c pass",
        "python -c from/multiprocessing.spawn/import/spawn_main",
        "python",
        "python -",
        "python /usr/bin/celery worker",
        "/usr/bin/python /srv/uv_worker.py",
    ],
)
def test_programs_are_not(line: str) -> None:
    assert not sitecustomize.is_tool(line.split())


def test_the_standard_librarys_own_process_is_left_alone() -> None:
    code = "from multiprocessing.resource_tracker import main;main(5)"
    assert sitecustomize.is_tool(["python", "-c", code])


def test_to_import_it_under_another_name_does_nothing() -> None:
    assert sitecustomize.__name__ != "sitecustomize"
