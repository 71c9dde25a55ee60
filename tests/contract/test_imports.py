"""Imports point down, also those for types only: a room may use the rooms listed before it, never one behind it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parents[2] / "otel_pipeline"
ROOMS: Final[tuple[frozenset[str], ...]] = tuple(
    frozenset(names.split())
    for names in (
        "nvml",
        "worker",
        "errors limits endpoints",
        "wire",
        "secrets gpu ledger",
        "outbox_state quiet event_loop",
        "recent outbox_file outbox_parked outbox_records",
        "outbox stats exposition",
        "contracts",
        "settings conditions memory health failures",
        "store",
        "receivers processors exporters extensions",
        "pipeline components bookkeeping",
        "own_work",
        "config",
        "gateway",
        "demo command_options",
        "ledger_commands error_commands agent_command ledger_report_layouts",
        "ledger_store_commands ledger_report_commands gpu_commands",
        "commands",
        "cli",
        "__main__",
    )
)
"""From the bottom up. Names in one line are rooms of one level: they do not use each other, but for the pairs below."""
WITHIN_A_LEVEL: Final = {("outbox", "stats"), ("receivers", "receivers")}
SHARED: Final = {"otel_pipeline.exporters.sender", "otel_pipeline.processors.actions"}
"""What several components of a room share; components themselves never import each other."""
ONE_COMPONENT: Final = {"otlp", "otlp_grpc", "otlp_http"}
"""The otlp receiver is three files."""
FOREIGN_TO_THE_DOOR: Final = {"aiohttp", "click", "grpc", "lmdb", "numpy", "pydantic", "rich"}


def modules() -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE.parent).with_suffix("")
        name = ".".join(relative.parts).removesuffix(".__init__")
        found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


def imported(tree: ast.Module) -> set[str]:
    """The modules of this project that a module imports; `from package import module` names the module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.startswith("otel_pipeline.") and exists(name)}


def exists(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def level(name: str) -> int:
    levels = [index for index, rooms in enumerate(ROOMS) if room(name) in rooms]
    assert levels, f"{name} is in no room: add it to ROOMS where it belongs"
    return levels[0]


MODULES: Final = [(name, tree) for name, tree in modules() if room(name)]


@pytest.mark.parametrize(("name", "tree"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_down(name: str, tree: ast.Module) -> None:
    upward = {
        other
        for other in imported(tree)
        if room(other) != room(name) and level(other) >= level(name) and (room(name), room(other)) not in WITHIN_A_LEVEL
    }
    assert not upward


@pytest.mark.parametrize("kind", ["receivers", "processors", "exporters", "extensions"])
def test_components_do_not_import_each_other(kind: str) -> None:
    own = [(name, tree) for name, tree in MODULES if room(name) == kind and name not in SHARED]
    across = {
        (name, other)
        for name, tree in own
        for other in imported(tree)
        if room(other) == kind
        and other.count(".") > 1
        and other not in SHARED
        and not {name.split(".")[-1], other.split(".")[-1]} <= ONE_COMPONENT
        and other != name
    }
    assert not across


def test_the_wire_room_does_no_io() -> None:
    forbidden = {"asyncio", "logging", "os", "pathlib", "socket", "threading", "time", "aiohttp", "grpc", "lmdb"}
    used = {
        (name, alias.name if isinstance(node, ast.Import) else node.module)
        for name, tree in MODULES
        if room(name) == "wire"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0] in forbidden
    }
    assert not used


def test_the_command_itself_needs_only_the_base_install() -> None:
    tree = dict(MODULES)["otel_pipeline.cli"]
    at_import = {
        (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not at_import & FOREIGN_TO_THE_DOOR
