"""What the worker side may need and touch: it runs inside somebody else's process."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

from otel_pipeline.worker import activation, names
from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.settings import Settings

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "otel_pipeline" / "worker"
MODULES: Final = sorted(PACKAGE.rglob("*.py"))
BASE_INSTALL: Final = {"opentelemetry", "otel_pipeline", "wrapt"}
OWN_ENTRY: Final = {"detector.py"}
"""The SDK imports it: the one module that may import the SDK's resources when it is loaded."""


HALVES: Final = {"temporal_client.py": {"temporalio"}, "temporal_worker.py": {"temporalio"}}
"""Loaded when the library is, by the adapter: they subclass what is in it."""


def at_import(path: Path) -> set[str]:
    """The modules that are imported when this one is, also inside `try` and `if`, without those for types only."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        waiting.extend(ast.iter_child_nodes(node))
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_needs_nothing_but_the_base_install(path: Path) -> None:
    foreign = {
        name
        for name in at_import(path)
        if name.split(".")[0] not in sys.stdlib_module_names | BASE_INSTALL | HALVES.get(path.name, set())
        or (name.startswith("opentelemetry.sdk") and path.name not in OWN_ENTRY)
        or (name.startswith("otel_pipeline.") and not name.startswith("otel_pipeline.worker"))
    }
    assert not foreign


def test_the_base_install_is_what_the_modules_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]}
    assert required == {"opentelemetry-api", "opentelemetry-instrumentation", "wrapt"}


def test_activation_imports_no_library_that_the_program_did_not() -> None:
    code = (
        "import sys; from otel_pipeline.worker import activation; activation.activate();"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    libraries = {adapter.library.split(".")[0] for adapter in activation.ADAPTERS} - sys.stdlib_module_names
    assert not libraries & set(loaded)
    assert not {"torch", "numpy", "grpc", "pynvml"} & set(loaded)


def test_each_row_of_the_table_names_a_patch_that_exists() -> None:
    for adapter in activation.ADAPTERS:
        assert callable(getattr(importlib.import_module(f"otel_pipeline.worker.{adapter.code}"), adapter.patch))
    for _, code in activation.ALWAYS:
        assert callable(importlib.import_module(f"otel_pipeline.worker.{code}").patch)


def test_each_adapter_is_in_the_table() -> None:
    listed = {adapter.code for adapter in activation.ADAPTERS} | {code for _, code in activation.ALWAYS}
    files = {path.stem for path in PACKAGE.glob("adapters/*.py") if "def patch(" in path.read_text("utf-8")}
    parts = {stem for stem in files if f"adapters.{stem.split('_')[0]}" in listed}
    assert {f"adapters.{stem}" for stem in files - parts} <= listed


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("opentelemetry_pre_instrument", "otel_pipeline"),
        ("opentelemetry_post_instrument", "otel_pipeline"),
        ("opentelemetry_resource_detector", "otel_pipeline"),
    ],
)
def test_opentelemetry_instrument_finds_the_entry_points(group: str, name: str) -> None:
    (found,) = [entry for entry in entry_points(group=group) if entry.name == name]
    assert callable(found.load())


def test_no_exception_leaves_the_entry_points() -> None:
    """One that did would stop every instrumentation that comes after."""
    code = (
        "from otel_pipeline.worker import activation, entry\nfrom otel_pipeline.worker.process import providers\n"
        "def fail(): raise RuntimeError('injected')\n"
        "activation.activate = providers.prepare = fail\n"
        "entry.pre_instrument(); entry.post_instrument(); print('alive')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "alive"


def test_the_switch_of_the_specification_leaves_the_worker_as_it_was() -> None:
    code = (
        "import threading; start = threading.Thread.start\n"
        "from otel_pipeline.worker import entry; entry.pre_instrument(); entry.post_instrument()\n"
        "print(threading.Thread.start is start)"
    )
    told = {}
    for disabled in ("true", "false"):
        env = {**os.environ, "OTEL_SDK_DISABLED": disabled}
        run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        told[disabled] = run.stdout.strip()
    assert told == {"true": "True", "false": "False"}


def test_each_setting_is_in_the_manual() -> None:
    manual = (ROOT / "docs" / "worker.md").read_text("utf-8")
    missing = {each.metadata["variable"] for each in dataclasses.fields(Settings)} - set(
        re.findall(r"`(OTEL_PIPELINE_\w+)`", manual)
    )
    assert not missing


def test_each_adapter_is_in_the_manual() -> None:
    manual = (ROOT / "docs" / "worker.md").read_text("utf-8")
    names = {adapter.name for adapter in activation.ADAPTERS} | {name for name, _ in activation.ALWAYS}
    assert not {name for name in names if f"`{name}`" not in manual}


METRIC: Final = re.compile(r'create_(?!key)\w+\(\s*"([\w.]+)"')
MEASURE: Final = {"queue_depth", "job_queue_size", "comfyui_backend_health"}
"""Named by the samplers' table, not where they are created."""


def test_each_metric_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "worker-reference.md").read_text("utf-8")
    created = {name for path in MODULES for name in METRIC.findall(path.read_text("utf-8"))} | MEASURE
    assert len(created) > 10
    assert not {name for name in created if f"`{name}`" not in reference}


def test_each_attribute_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "worker-reference.md").read_text("utf-8")
    named = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    literal = re.compile(
        r'"((?:comfyui|otel_pipeline)\.(?:node|prompt|queue|execution|error|validation|gpu)\.[a-z_.]+)"'
    )
    used = {name for path in MODULES for name in literal.findall(path.read_text("utf-8"))}
    hooks = set(HOOKS)
    assert not {name for name in (named | used) - hooks if f"`{name}`" not in reference}


def test_hooks_carry_the_name_of_their_module() -> None:
    for adapter in activation.ADAPTERS:
        importlib.import_module(f"otel_pipeline.worker.{adapter.code}")
    assert HOOKS
    assert all(re.fullmatch(r"[a-z_0-9]+(\.[a-z_0-9]+)+", name) for name in HOOKS)
