"""A worker under `opentelemetry-instrument` samples the stub's GPUs by itself, unless somebody else does."""

from __future__ import annotations

import os
import signal
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_pipeline.nvml.claims import Claims
from tests.support import nvml_stub
from tests.support.nvml_stub.control import RINGS, Control, gpu, uuid
from tests.support.worker_faults import ELSEWHERE
from tests.support.worker_program import Ended, finish, run, start
from tests.support.worker_sink import WorkerSink, worker_sink

SLEEP = "print('done', flush=True); time.sleep({seconds})"


@pytest.fixture
def sink() -> Iterator[WorkerSink]:
    with worker_sink() as found:
        yield found


@pytest.fixture
def own_uuid() -> str:
    """Claims are seen by every process of this machine: each test has a GPU of its own."""
    return f"GPU-{uuids.uuid4()}"


def shown(folder: Path, own_uuid: str) -> dict[str, str]:
    """The environment of a process that sees one GPU."""
    control = Control(folder)
    control.write(gpu(0, *RINGS).replace(uuid(0), own_uuid))
    return dict(control.environment(nvml_stub.built()))


def ids(sink: WorkerSink, name: str) -> set[str]:
    return {point.get("hw.id") for point in sink.points if point.name == name}


def test_a_worker_sends_the_samples_of_its_gpu_with_its_own_resource(
    tmp_path: Path, sink: WorkerSink, own_uuid: str
) -> None:
    more = shown(tmp_path, own_uuid) | {"RUNPOD_POD_ID": "pod7"}
    ended = run(tmp_path, SLEEP.format(seconds=3.2), sink.url, **more)
    assert ended.returncode == 0, ended.errors
    energy = [point for point in sink.points if point.name == "hw.energy"]
    assert {point.get("hw.id") for point in energy} == {own_uuid}
    assert len(energy) >= 25
    assert energy[0].resource["service.name"] == "worker"
    assert energy[0].resource["host.id"] == "pod7"
    assert energy[0].resource["otel_pipeline.sent_time_unix_nano"] > 0
    values = [point.value for point in energy]
    assert values == sorted(values)
    assert ids(sink, "hw.gpu.utilization") == {own_uuid}
    assert not ids(sink, "process.gpu.memory.usage")


def test_the_last_samples_are_sent_when_it_ends(tmp_path: Path, sink: WorkerSink, own_uuid: str) -> None:
    ended = run(tmp_path, SLEEP.format(seconds=0.6), sink.url, **shown(tmp_path, own_uuid))
    assert ended.returncode == 0, ended.errors
    assert ids(sink, "hw.energy") == {own_uuid}
    assert ids(sink, "hw.power") == {own_uuid}


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_it_does_not_where_it_is_off_or_an_agent_does(
    setting: str, tmp_path: Path, sink: WorkerSink, own_uuid: str
) -> None:
    agent = Claims("agent")
    if setting == "auto":
        agent.announce(own_uuid)
    run(tmp_path, SLEEP.format(seconds=2.5), sink.url, OTEL_PIPELINE_GPU_SAMPLING=setting, **shown(tmp_path, own_uuid))
    agent.release()
    assert not ids(sink, "hw.energy")


def test_it_does_where_it_is_told_to_beside_an_agent(tmp_path: Path, sink: WorkerSink, own_uuid: str) -> None:
    agent = Claims("agent")
    agent.announce(own_uuid)
    run(tmp_path, SLEEP.format(seconds=0.6), sink.url, OTEL_PIPELINE_GPU_SAMPLING="on", **shown(tmp_path, own_uuid))
    agent.release()
    assert ids(sink, "hw.energy") == {own_uuid}


def test_of_two_workers_one_samples(tmp_path: Path, sink: WorkerSink, own_uuid: str) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    environment = shown(tmp_path, own_uuid)
    processes = [
        start(folder, SLEEP.format(seconds=2.5), sink.url, OTEL_SERVICE_NAME=folder.name, **environment)
        for folder in folders
    ]
    ended: list[Ended] = [finish(process) for process in processes]
    assert [one.returncode for one in ended] == [0, 0]
    assert len({point.resource["service.name"] for point in sink.points if point.name == "hw.energy"}) == 1


def test_without_a_driver_the_worker_runs_as_it_would(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    time.sleep(2.5)
    print(sorted(each.name for each in threading.enumerate() if "gpus" in each.name))
    """
    ended = run(tmp_path, body, sink.url)
    assert (ended.returncode, ended.output.strip()) == (0, "[]"), ended.errors
    assert not [point for point in sink.points if "gpu" in point.name or point.name.startswith("hw.")]


def test_a_driver_that_hangs_does_not_hold_the_worker_up(tmp_path: Path, sink: WorkerSink, own_uuid: str) -> None:
    ended = run(tmp_path, "print(time.time())", sink.url, NVML_STUB_HANG="1", **shown(tmp_path, own_uuid))
    assert ended.returncode == 0, ended.errors
    assert ended.exit_s < 3.5


def test_a_forked_child_does_not_keep_the_claim_of_its_parent(tmp_path: Path, own_uuid: str) -> None:
    body = """
    time.sleep(1.5)
    child = os.fork()
    if not child:
        os.close(1), os.close(2)
        time.sleep(60)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = run(tmp_path, body, "http://127.0.0.1:1", **shown(tmp_path, own_uuid))
    later = Claims("worker")
    try:
        assert later.take(own_uuid)
    finally:
        later.release()
        os.kill(int(ended.output.split()[0]), signal.SIGKILL)


FAULTY = """
from otel_pipeline.worker.guard import HOOKS
def note(name):
    with open({file!r}, "a", encoding="utf-8") as file:
        file.write(name + chr(10))
for name in {names!r}:
    HOOKS[name].fault = RuntimeError("injected")
    HOOKS[name]._swallow = lambda name=name: note(name)
time.sleep(2.6)
child = os.fork()
if not child:
    os._exit(0)
print(os.waitpid(child, 0)[1], flush=True)
"""


def test_an_exception_in_a_hook_of_it_changes_nothing_for_the_worker(
    tmp_path: Path, sink: WorkerSink, own_uuid: str
) -> None:
    names = ELSEWHERE["gpus"]
    file = tmp_path / "threw"
    seen = []
    for faulty in ((), *((name,) for name in names)):
        body = FAULTY.format(file=str(file), names=faulty)
        ended = run(tmp_path, body, sink.url, OTEL_PIPELINE_GPU_SAMPLING="on", **shown(tmp_path, own_uuid))
        seen.append((ended.returncode, ended.output, ended.errors))
    assert seen == [(0, "0\n", "")] * len(seen)
    assert set(file.read_text("utf-8").split()) == set(names)
