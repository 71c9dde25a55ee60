"""Imported by Python itself at the start of each process that has this folder on PYTHONPATH: see this package.

A `sitecustomize` that this one hides is run first, as if this one were not there. Nothing of ours is raised or printed:
the interpreter may be another one than ours, without OpenTelemetry, and tools (pip, venv, launchers) are left alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

FOLDER: Final = str(Path(__file__).resolve().parent)
THEIRS: Final = os.path.join("opentelemetry", "instrumentation", "auto_instrumentation")  # noqa: PTH118  a piece of one
TOOLS: Final = frozenset(
    {"build", "compileall", "conda", "ensurepip", "mypy", "opentelemetry", "pip", "pipx", "poetry", "py_compile"}
    | {"ruff", "site", "sysconfig", "uv", "venv", "virtualenv", "wheel"}
)
"""Programs that are no service, by the first name after `-m` or by that of their script."""
OWN_MODULES: Final = frozenset(
    {"otel_pipeline", "otel_pipeline.worker.autoload", "otel_pipeline.worker.comfyui.discovery"}
)
TOOL_SCRIPTS: Final = TOOLS | {
    "__pip-runner__.py",
    "_in_process.py",
    "opentelemetry-bootstrap",
    "opentelemetry-instrument",
    "otel-pipeline",
    "setup.py",
}
TRACKERS: Final = ("from multiprocessing.resource_tracker import", "from multiprocessing.semaphore_tracker import")
"""How the standard library starts a process of its own, which runs no code of the program."""


def run_hidden() -> None:
    """The `sitecustomize` that Python would have found without this folder; OpenTelemetry's own is in `load`."""
    places = [place for place in sys.path if not _is_ours(place) and THEIRS not in place]
    spec = PathFinder.find_spec("sitecustomize", places)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def load() -> None:
    """What `opentelemetry-instrument` makes happen. Processes that this starts are not to do the same."""
    if is_tool(sys.orig_argv) or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    from opentelemetry.instrumentation.auto_instrumentation import initialize  # noqa: PLC0415  tools pay nothing

    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(place for place in path.split(os.pathsep) if not _is_ours(place))
    try:
        initialize()
    finally:
        os.environ["PYTHONPATH"] = path


def is_tool(arguments: list[str]) -> bool:
    """Whether a command line, interpreter first, is one of a tool. Its options may come in any form."""
    rest = iter(arguments[1:])
    for each in rest:
        if each in {"-X", "-W", "--check-hash-based-pycs"}:
            next(rest, None)
        elif each == "-m" or (each.startswith("-m") and not each.startswith("--")):
            module = each[2:] or next(rest, "")
            return module in OWN_MODULES or module.split(".")[0] in TOOLS
        elif each == "-c":
            return next(rest, "").startswith(TRACKERS)
        elif not each.startswith("-"):
            name = Path(each).name
            return name in TOOL_SCRIPTS or name.startswith("pip3")
    return False


def _is_ours(place: str) -> bool:
    return bool(place) and os.path.realpath(place) == FOLDER


if __name__ == "sitecustomize":
    try:
        run_hidden()
    finally:
        with contextlib.suppress(Exception):  # the program must start
            load()
