"""An exception in any of our hooks changes nothing for the program: not its values, not its queues, not its end.

Each hook in turn throws while programs do what programs do (tests/support/worker_battery.py), and once all of them;
hooks of a process's start and end throw in processes of their own (tests/support/worker_exits.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.demo.redis_server import redis_server
from tests.benchmarks.worker import stand_in
from tests.support.worker_battery.core import FLOWS
from tests.support.worker_exits import KINDS
from tests.support.worker_faults import (
    ELSEWHERE,
    PEER,
    answer,
    check,
    compared,
    differences,
    flows_of,
    hooks_in_the_source,
    run,
)

OF_THE_PEER = ("arq_jobs",)
"""Flows of a library that lives apart, because it needs another redis-py."""
WITH_SERVERS = ("broker_flows", "temporal_flows")
"""Flows of test_faults_brokers.py and test_faults_temporal.py."""


@dataclass(frozen=True)
class Servers:
    redis: str
    comfyui: str


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with redis_server() as redis_url, stand_in() as comfyui_url:
        yield Servers(redis_url, comfyui_url)


@pytest.fixture(scope="module")
def thrown(servers: Servers) -> dict[str, Any]:
    others = {*OF_THE_PEER, *flows_of(*WITH_SERVERS)}
    return compared([name for name in FLOWS if name not in others], **asdict(servers))


def test_no_program_notices_an_exception_in_a_hook(thrown: dict[str, Any]) -> None:
    assert not thrown["different"], differences(thrown)


def test_no_arq_program_notices_an_exception_in_a_hook(servers: Servers) -> None:
    if not PEER.is_dir():
        pytest.skip("arq is missing: run scripts/install-peers")
    check(compared(OF_THE_PEER, peer=True, **asdict(servers)), "arq")


def test_every_hook_that_is_written_is_known_here(thrown: dict[str, Any]) -> None:
    written = Counter(hooks_in_the_source())
    assert [name for name, times in written.items() if times > 1] == []
    assert sorted(written) == thrown["hooks"]


def test_nothing_is_left_to_other_tests_that_is_reached_here(thrown: dict[str, Any]) -> None:
    for names in ELSEWHERE.values():
        for start in names:
            mine = [name for name in thrown["hooks"] if name.startswith(start)]
            assert mine, f"there is no hook {start}"
            assert not all(thrown["thrown"][name] for name in mine), f"{start} need not be left to others"


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
    return [
        (End(code, (own / "out").read_text(), last_line((own / "error").read_text())), names(own / "reached"))
        for code, own in zip(answer(child), folders, strict=True)
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
    others = tuple(start for starts in ELSEWHERE.values() for start in starts)
    unreached = [name for name, kind in by_hook.items() if kind is None and not name.startswith(others)]
    assert not unreached, f"nothing throws in these: {unreached}"
