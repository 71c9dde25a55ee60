"""An exception in any of our hooks changes nothing for the program: not its values, not its queues, not its end.

Each hook in turn throws while programs do what programs do (tests/support/worker_battery.py), and once all of them;
hooks of a process's start and end throw in processes of their own (tests/support/worker_exits.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.demo.redis_server import redis_server
from tests.benchmarks.worker import stand_in
from tests.support.worker_battery.core import FLOWS
from tests.support.worker_battery.run import MODULES
from tests.support.worker_battery.thread_flows import JOB_FUNCTIONS
from tests.support.worker_exits import KINDS

REPOSITORY = Path(__file__).resolve().parents[3]
PEER = REPOSITORY / ".cache" / "peers" / "arq"
CHILD_S_MAX = 240
OF_THE_PEER = ("arq_jobs",)
"""Flows of a library that lives apart, because it needs another redis-py."""
NOT_REACHED = {
    "in test_pika.py and test_aio_pika.py, which have a RabbitMQ": ("pika.", "aio_pika."),
    "in test_no_arq_program_notices_an_exception_in_a_hook": ("arq.",),
    "they need a Temporal server": ("temporal.",),
    "Celery's own ends of a task: limits, revocation, a lost child": (
        "celery.gone",
        "celery.late",
        "celery.revoked",
        "celery.terminating",
        "celery.timed_out",
    ),
    "not in a program's way: called by it, or by ComfyUI, as a thing of ours": ("discovery.", "comfyui_custom_node."),
    "nobody reads metrics here": ("comfyui_server.queue_size",),
    "at the end of a ComfyUI server in mid prompt": ("comfyui_server.close_all",),
    "only in the first process of a container": ("lifecycle.save",),
    "whenever the collector finds a batch that was given up, so not in the same flow each time": (
        "redis.batch_dropped",
    ),
}
"""Hooks, or beginnings of their names, that nothing here reaches, and why."""


@dataclass(frozen=True)
class Servers:
    redis: str
    comfyui: str


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with redis_server() as redis_url, stand_in() as comfyui_url:
        yield Servers(redis_url, comfyui_url)


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


def battery(mode: str, servers: Servers, *, peer: bool, wanted: dict[str, str] | None = None) -> dict[str, Any]:
    assert MODULES
    only = [name for name in FLOWS if (name in OF_THE_PEER) == peer]
    options = {"redis": servers.redis, "comfyui": servers.comfyui, "only": only, "wanted": wanted}
    named = ",".join(f"tests.support.worker_battery.thread_flows:{name}" for name in JOB_FUNCTIONS)
    child = run(
        "from tests.support.worker_battery.run import main; main()",
        mode,
        json.dumps(options),
        peer=peer,
        OTEL_PIPELINE_JOB_FUNCTIONS=named,
        OTEL_PIPELINE_HEARTBEAT_S="0.05",
        OTEL_PIPELINE_JOB_RULES=json.dumps([{"when": "log", "matches": "giving up on", "outcome": "failed"}]),
    )
    assert child.returncode == 0, child.stderr[-4000:]
    answer: dict[str, Any] = json.loads(child.stdout.strip().splitlines()[-1])
    return answer


def compared(servers: Servers, *, peer: bool) -> dict[str, Any]:
    """The flows without us, then with us and an exception in each hook."""
    wanted = battery("plain", servers, peer=peer)["results"]
    broken = {name: result for name, result in wanted.items() if "the flow ended with" in result}
    assert not broken, "these do not even run without us"
    return battery("faults", servers, peer=peer, wanted=wanted)


@pytest.fixture(scope="module")
def thrown(servers: Servers) -> dict[str, Any]:
    return compared(servers, peer=False)


def differences(found: dict[str, Any]) -> str:
    return "\n".join(
        f"fault in {fault}: {flow}\n  with us:    {got}\n  without us: {wanted}"
        for fault, flow, got, wanted in found["different"]
    )


def test_no_program_notices_an_exception_in_a_hook(thrown: dict[str, Any]) -> None:
    assert not thrown["different"], differences(thrown)


def test_no_arq_program_notices_an_exception_in_a_hook(servers: Servers) -> None:
    if not PEER.is_dir():
        pytest.skip("arq is missing: run scripts/install-peers")
    found = compared(servers, peer=True)
    assert not found["different"], differences(found)
    untouched = [name for name, times in found["thrown"].items() if name.startswith("arq.") and not times]
    assert not untouched, "nothing throws in these"


@dataclass(frozen=True)
class End:
    """What can be seen of a process from outside."""

    code: int
    out: str
    error: str


def ends(servers: Servers, folder: Path, runs: Sequence[tuple[str, str | None]]) -> list[tuple[End, set[str]]]:
    """How processes end: kind of end, hook that throws; and which hooks each reached."""
    folders = [folder / str(number) for number in range(len(runs))]
    for each in folders:
        each.mkdir(parents=True)
    wanted = [
        {"kind": kind, "fault": fault, "folder": str(own)} for (kind, fault), own in zip(runs, folders, strict=True)
    ]
    options = {"redis": servers.redis, "comfyui": servers.comfyui, "runs": wanted}
    child = run(
        "from tests.support.worker_exits import main; main()",
        json.dumps(options),
        OTEL_PIPELINE_JOB_FUNCTIONS="__main__:own_job,colorsys:rgb_to_hsv,__main__:missing",
        OTEL_PIPELINE_SAMPLE_REDIS_URL=servers.redis,
        OTEL_PIPELINE_SAMPLE_QUEUES="jobs:queue",
    )
    assert child.returncode == 0, child.stderr[-4000:]
    return [
        (End(code, (own / "out").read_text(), last_line((own / "error").read_text())), names(own / "reached"))
        for code, own in zip(json.loads(child.stdout.strip().splitlines()[-1]), folders, strict=True)
    ]


def last_line(errors: str) -> str:
    """The exception that ended the process; warnings of ours may stand before it."""
    return errors.strip().splitlines()[-1] if "Traceback" in errors else ""


def names(file: Path) -> set[str]:
    return set(file.read_text().split()) if file.exists() else set()


def test_no_program_starts_or_ends_otherwise_for_an_exception_in_a_hook(
    servers: Servers, thrown: dict[str, Any], tmp_path: Path
) -> None:
    kinds = list(KINDS)
    first = ends(servers, tmp_path / "first", [(kind, fault) for fault in (None, "none", "*") for kind in kinds])
    wanted = {kind: seen for kind, (seen, _) in zip(kinds, first, strict=False)}
    sound, faulty = first[len(kinds) : 2 * len(kinds)], first[2 * len(kinds) :]
    assert {kind: seen for kind, (seen, _) in zip(kinds, sound, strict=True)} == wanted, "without any fault"
    assert {kind: seen for kind, (seen, _) in zip(kinds, faulty, strict=True)} == wanted, "with a fault in each hook"

    left = [name for name, times in thrown["thrown"].items() if not times]
    reached = {kind: hooks for kind, (_, hooks) in zip(kinds, sound, strict=True)}
    by_hook = {name: next((kind for kind in kinds if name in reached[kind]), None) for name in left}
    runs = [(kind, name) for name, kind in by_hook.items() if kind is not None]
    different = {
        (kind, name): seen
        for (kind, name), (seen, _) in zip(runs, ends(servers, tmp_path / "second", runs), strict=True)
        if seen != wanted[kind]
    }
    assert not different, f"without us: {wanted}"
    known = tuple(start for starts in NOT_REACHED.values() for start in starts)
    unreached = [name for name, kind in by_hook.items() if kind is None and not name.startswith(known)]
    assert not unreached, f"nothing throws in these: {unreached}"
