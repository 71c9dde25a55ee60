# ruff: noqa: PLC0415, BLE001
# A flow imports its library itself: with our hooks in place, and only if it is run. All servers are on loopback.
"""What host programs do with the libraries that we hook, as small flows whose results can be compared.

A flow does something with one library the way programs do and returns all that the program could notice: values,
exceptions, bytes left in Redis. Run in a child process, which says as JSON what it saw (`test_faults`):

    python -c 'from tests.support.worker_battery.run import main; main()' MODE OPTIONS

`plain` runs each flow without us. `faults` runs each with us, then once for every hook with an exception thrown in that
hook, then with one thrown in all.
"""

from __future__ import annotations

import contextvars
import importlib
import json
import logging
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from tests.support.worker_battery import (
    broker_flows,
    comfyui_http_flows,
    comfyui_socket_flows,
    framework_flows,
    log_flows,
    own_flows,
    platform_flows,
    redis_flows,
    server_flows,
    temporal_flows,
    thread_flows,
)
from tests.support.worker_battery.core import FLOWS, World

MODULES: Final = (
    redis_flows,
    thread_flows,
    comfyui_http_flows,
    comfyui_socket_flows,
    framework_flows,
    platform_flows,
    log_flows,
    server_flows,
    own_flows,
    broker_flows,
    temporal_flows,
)
"""Each registers its flows when it is imported."""


FLOWS_FOR_A_HOOK: Final = 2
SECONDS_FOR_A_HOOK: Final = 0.1
"""Of the flows that reach a hook the cheapest ones are run: at least so many, and as many as fit into the time."""
RANDOM: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b|\d{13}-\d")
"""Ids that differ from run to run: UUIDs, ids of stream entries."""
ADDRESSES: Final = re.compile(r"0x[0-9a-f]{6,}")


def result_of(name: str, world: World) -> str:
    """What the flow saw, as text that can be compared."""
    try:
        value: Any = FLOWS[name](world)
    except BaseException as error:
        value = ["the flow ended with", type(error).__qualname__, str(error), traceback.format_exc()[-600:]]
    return ADDRESSES.sub("0x", RANDOM.sub("id", repr(value)))


def chosen(world: World) -> list[str]:
    return [name for name in FLOWS if not world.only or name in world.only]


def plain(world: World) -> dict[str, Any]:
    return {"results": {name: result_of(name, world) for name in chosen(world)}}


def faults(world: World, wanted: dict[str, str]) -> dict[str, Any]:
    """Runs of the flows with exceptions in hooks; `wanted` is what they see without us."""
    from otel_pipeline.worker import flow as flow_module
    from otel_pipeline.worker.guard import HOOKS, Hook

    calls: set[str] = set()
    original = Hook.__call__

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (args and args[0] is None):  # else it returns at once, whatever it is
            calls.add(self.name)
        return original(self, *args, **kwargs)

    reached: dict[str, list[tuple[float, str]]] = {}
    different: list[list[str]] = []

    clean = contextvars.copy_context()

    def run(name: str, fault: str) -> None:
        flow_module._local.flow = None
        got = clean.copy().run(result_of, name, world)
        if got != wanted[name]:
            different.append([fault, name, got[:2000], wanted[name][:2000]])

    load_all()
    Hook.__call__ = counted  # type: ignore[method-assign]
    for name in wanted:
        calls.clear()
        began_s = time.monotonic()
        run(name, "no fault")
        for each in calls:
            reached.setdefault(each, []).append((time.monotonic() - began_s, name))
    Hook.__call__ = original  # type: ignore[method-assign]
    thrown = dict.fromkeys(HOOKS, 0)
    for each in sorted(name for name in HOOKS if name.startswith(world.hooks)):
        hook = HOOKS[each]
        hook.fault, before = RuntimeError(f"injected into {each}"), hook.failures
        spent_s = 0.0
        for number, (seconds, name) in enumerate(sorted(reached.get(each, []))):
            spent_s += seconds
            # What is reached by chance, as by a collection of garbage, is tried until it is.
            if number >= FLOWS_FOR_A_HOOK and spent_s > SECONDS_FOR_A_HOOK and hook.failures > before:
                break
            run(name, each)
        hook.fault = None
        thrown[each] = hook.failures - before
    for hook in HOOKS.values():
        hook.fault = RuntimeError("injected into all")
    for name in wanted:
        run(name, "all hooks")
    seconds = {name: round(min(s for runs in reached.values() for s, n in runs if n == name), 3) for name in wanted}
    return {"different": different, "thrown": thrown, "hooks": sorted(HOOKS), "seconds": seconds}


def load_all() -> None:
    """Hooks of adapters whose library nobody here imports count too."""
    from otel_pipeline import worker

    folder = Path(worker.__file__).parent
    for file in sorted(folder.rglob("*.py")):
        if "@hook(" in file.read_text("utf-8"):
            parts = (worker.__name__, *file.relative_to(folder).with_suffix("").parts)
            importlib.import_module(".".join(parts).removesuffix(".__init__"))


def main() -> None:
    mode, options = sys.argv[1], json.loads(sys.argv[2])
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    world = World(**options)
    if mode == "plain":
        answer = plain(world)
    else:
        from tests.benchmarks.worker_load import instrument

        instrument("ours")
        answer = faults(world, options["wanted"])
    print("\n" + json.dumps(answer), flush=True)
    if world.temporal:
        # Not through the interpreter's finalization: there its runtime aborts now and then, with us and without.
        os._exit(0)
