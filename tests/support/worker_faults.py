"""Batteries of flows run in children, with and without us, and which test breaks which hooks one by one.

The flows are in worker_battery/. Hooks of a process's start and end are in worker_exits.py.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.worker_battery.core import FLOWS
from tests.support.worker_battery.run import MODULES
from tests.support.worker_battery.thread_flows import JOB_FUNCTIONS

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PEER: Final = REPOSITORY / ".cache" / "peers" / "arq"
CHILD_S_MAX: Final = 240
ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "arq": ("arq.",),
    "brokers": ("pika.", "aio_pika."),
    "temporal": ("temporal.",),
    "gpus": ("gpu_sampling.forget", "gpu_sampling.stop", "gpu_sampling.send"),
    "celery": ("celery.gone", "celery.late", "celery.revoked", "celery.terminating", "celery.timed_out"),
}
"""Hooks, or beginnings of their names, that tests with servers or libraries of their own break, each of them."""
_WORKER: Final = REPOSITORY / "otel_pipeline" / "worker"


def run(code: str, *arguments: str, peer: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
    """A child with its own interpreter, and its own libraries before ours if it needs the peer's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    path = [str(PEER), str(REPOSITORY)] if peer else [str(REPOSITORY)]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**kept, "PYTHONPATH": os.pathsep.join(path), **env},
        capture_output=True,
        text=True,
        timeout=CHILD_S_MAX,
        check=False,
    )


def answer(child: subprocess.CompletedProcess[str]) -> Any:
    """Its last line of JSON."""
    lines = [line for line in child.stdout.splitlines() if line.startswith(("{", "["))]
    assert child.returncode == 0, f"{child.returncode}\n{child.stdout[-2000:]}\n{child.stderr[-4000:]}"
    assert lines, child.stderr[-4000:]
    return json.loads(lines[-1])


def flows_of(*modules: str) -> list[str]:
    assert MODULES
    return [name for name, function in FLOWS.items() if function.__module__.rpartition(".")[2] in modules]


def compared(only: Sequence[str], *, peer: bool = False, **options: Any) -> dict[str, Any]:
    """The flows without us, then with us and an exception in each hook (of those in `hooks`, if it is given)."""
    wanted = _battery("plain", {**options, "only": only}, peer=peer)["results"]
    broken = {name: result for name, result in wanted.items() if "the flow ended with" in result}
    assert not broken, "these do not even run without us"
    found: dict[str, Any] = _battery("faults", {**options, "only": only, "wanted": wanted}, peer=peer)
    return found


def _battery(mode: str, options: dict[str, Any], *, peer: bool) -> Any:
    named = ",".join(f"tests.support.worker_battery.thread_flows:{name}" for name in JOB_FUNCTIONS)
    return answer(
        run(
            "from tests.support.worker_battery.run import main; main()",
            mode,
            json.dumps(options),
            peer=peer,
            OTEL_PIPELINE_JOB_FUNCTIONS=named,
            OTEL_PIPELINE_HEARTBEAT_S="0.05",
            OTEL_PIPELINE_JOB_RULES=json.dumps([{"when": "log", "matches": "giving up on", "outcome": "failed"}]),
        )
    )


def check(found: Mapping[str, Any], group: str) -> None:
    """No flow noticed anything, and each hook that the group is to break did throw."""
    assert not found["different"], differences(found)
    mine = [name for name in found["hooks"] if name.startswith(ELSEWHERE[group])]
    untouched = [name for name in mine if not found["thrown"][name]]
    assert mine, "there are no such hooks"
    assert not untouched, f"nothing throws in these: {untouched}"


def differences(found: Mapping[str, Any]) -> str:
    return "\n".join(
        f"fault in {fault}: {flow}\n  with us:    {got}\n  without us: {wanted}"
        for fault, flow, got, wanted in found["different"]
    )


def hooks_in_the_source() -> Iterator[str]:
    """The names of all hooks, as they are written."""
    for file in sorted(_WORKER.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "hook":
                name = node.args[0]
                where = f"{file.name}:{node.lineno}"
                assert isinstance(name, ast.Constant), f"{where}: a hook's name is a literal, so that it can be counted"
                yield str(name.value)
