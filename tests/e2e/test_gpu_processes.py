"""GPU data on spans over real processes: two hosts with agents, a gateway that is killed, and the stub's known load."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest

from tests.e2e.gateway import Client, Gateway, Ports, Sink, configuration, own_metrics, run_to_end, to_sink
from tests.e2e.gpu_hosts import ROUNDING_J, SECOND_NS, Agent, Gpus, Interval, Load, stages, told
from tests.e2e.support import Json, Launcher, Server, environment, python, until

SENDING_S: Final = 6.0
KILLED_AT_S: Final = 2.0
AWAY_S: Final = 1.5
REACH_S: Final = 2.0
"""Spans begin less than this before they are sent."""
LOOK_S: Final = 0.25
"""Between two looks at all that has arrived: it takes a while on two cores."""
SPANS: Final = 1_000
TILES: Final = 40


def central(ports: Ports, sink: Sink, receivers: Json | None = None, **gpu_stats: Any) -> Json:
    """A gateway that joins spans with the samples that come over OTLP or by receivers of its own."""
    config = configuration(ports, to_sink(sink.port), {"redaction": {}, "gpu_stats": gpu_stats})
    config["receivers"] |= receivers or {}
    config["exporters"]["debug"] = {}
    config["service"]["pipelines"]["metrics"] = {
        "receivers": list(config["receivers"]),
        "processors": ["redaction", "gpu_stats"],
        "exporters": ["debug"],
    }
    config["service"]["pipelines"]["logs"] = {"receivers": ["otlp"], "exporters": ["debug"]}
    config["service"]["pipelines"]["traces"]["exporters"] = ["otlp"]
    return config


def samples_kept(telemetry: int) -> float:
    found = own_metrics(telemetry).get("otel_pipeline_gpu_samples_total", [])
    return sum(value for labels, value in found if labels["outcome"] == "kept")


class Worker(threading.Thread):
    """Sends spans of some seconds that just ended, until they are taken: again after a refusal, as SDKs do."""

    def __init__(self, port: int, host_id: str, first: int, until_s: float) -> None:
        super().__init__(name=host_id)
        self.acknowledged: dict[bytes, Interval] = {}
        self._port, self._host_id, self._number, self._until_s = port, host_id, first, until_s
        self._chance = random.Random(first)

    def run(self) -> None:
        with Client(self._port) as client:
            while time.monotonic() < self._until_s:
                spans = [self._span() for _ in range(8)]
                while not self._sent(client, spans):
                    time.sleep(0.05)
                self.acknowledged |= {one.span_id: one for one in spans}
                time.sleep(0.1)

    def _span(self) -> Interval:
        self._number += 1
        end_ns = time.time_ns() - self._chance.randint(0, SECOND_NS // 2)
        return Interval(self._number, end_ns - self._chance.randint(1_000_000, SECOND_NS), end_ns)

    def _sent(self, client: Client, spans: list[Interval]) -> bool:
        try:
            client.send(stages(spans, self._host_id))
        except grpc.RpcError:
            return False
        return True


def test_two_hosts_and_a_gateway_that_is_killed(launcher: Launcher, sink: Sink) -> None:
    """Host one's worker, in a container, sends to its agent, which joins; host two's to the gateway, which waits for
    the samples of agent two.
    """
    ports = Ports.free()
    loads = {name: Load(seed) for seed, name in enumerate(("host-one", "host-two"), 1)}
    agents = {
        name: Agent(launcher, name, ports.grpc, Gpus(launcher.folder / f"{name}-gpus", [load]).environment)
        for name, load in loads.items()
    }
    gateway = Gateway(launcher, ports, central(ports, sink, max_wait="20s"))
    for agent in agents.values():
        agent.until_ready()
    until(lambda: samples_kept(ports.telemetry) > 200, "samples of both hosts")
    time.sleep(REACH_S)
    until_s = time.monotonic() + SENDING_S
    one = Worker(agents["host-one"].grpc, "0123456789ab", 1_000_000, until_s)
    two = Worker(ports.grpc, "host-two", 2_000_000, until_s)
    for worker in (one, two):
        worker.start()
    time.sleep(KILLED_AT_S)
    parked_or_sent = len(two.acknowledged)
    gateway.server.kill()
    time.sleep(AWAY_S)
    gateway.restart()
    for worker in (one, two):
        worker.join()
    acknowledged = one.acknowledged | two.acknowledged
    assert 0 < parked_or_sent < len(two.acknowledged)
    until(lambda: time.sleep(LOOK_S) or acknowledged.keys() <= sink.ids().keys(), "every acknowledged span")
    arrived = sink.spans()
    assert {span.span_id for span in arrived} == acknowledged.keys()
    for span in arrived:
        load = loads["host-one" if span.span_id in one.acknowledged else "host-two"]
        found = told(span)
        assert (found["status"], found["ids"]) == ("ok", [load.uuid]), found
        assert found["coverage"] == 1.0
        truth_j = load.energy_j(span.start_time_unix_nano, span.end_time_unix_nano)
        assert abs(found["energy"] - truth_j) <= found["energy.error"] + ROUNDING_J, (found, truth_j)


# -- one machine -------------------------------------------------------------------------------------------------------


class Machine:
    """A gateway that samples the GPUs of its own machine."""

    def __init__(self, launcher: Launcher, sink: Sink) -> None:
        self.load = Load(7)
        self.other = Load(8)
        ports = Ports.free()
        self.ports, self.sink = ports, sink
        self.data_dir = launcher.folder / "machine-data"
        env = Gpus(launcher.folder / "gpus", [self.load]).environment
        config = "yaml:" + json.dumps(central(ports, sink, {"nvml": {}}, max_wait="3s"))
        command = python("otel_pipeline", "gateway", "--config", config, "--data-dir", str(self.data_dir))
        self.server: Server = launcher.start("machine", command, environment(RUNPOD_POD_ID="pod", **env))
        self.server.wait_until(lambda: _is_listening(ports), "listening")
        until(lambda: samples_kept(ports.telemetry) > 0, "samples")

    def joined(self, intervals: list[Interval]) -> list[Json]:
        """What is told on these spans, in their order."""
        with Client(self.ports.grpc) as client:
            client.send(stages(intervals, "pod"))
        wanted = {one.span_id for one in intervals}
        until(lambda: time.sleep(LOOK_S) or wanted <= self.sink.ids().keys(), "the spans")
        found = {span.span_id: told(span) for span in self.sink.spans()}
        return [found[one.span_id] for one in intervals]


def _is_listening(ports: Ports) -> bool:
    try:
        return bool(own_metrics(ports.telemetry))
    except AssertionError:
        return False


@pytest.fixture(scope="module")
def machine(module_launcher: Launcher) -> Iterator[Machine]:
    sink = Sink()
    sink.up()
    try:
        yield Machine(module_launcher, sink)
    finally:
        sink.down()


def test_energy_is_within_the_bound_that_each_span_states(machine: Machine) -> None:
    began_ns = time.time_ns() + SECOND_NS // 5
    time.sleep(6.0)
    ended_ns = time.time_ns() - SECOND_NS // 2
    chance = random.Random(1)
    moments = [sorted(chance.randint(began_ns, ended_ns) for _ in range(2)) for _ in range(SPANS)]
    intervals = [Interval(number, *pair) for number, pair in enumerate(moments, 1)]
    found = machine.joined(intervals)
    assert {one["status"] for one in found} == {"ok"}
    truths = [machine.load.energy_j(one.start_ns, one.end_ns) for one in intervals]
    wrong = [
        (one, truth_j)
        for one, truth_j in zip(found, truths, strict=True)
        if abs(one["energy"] - truth_j) > one["energy.error"] + ROUNDING_J
    ]
    assert wrong == []
    assert sorted(one["energy.error"] for one in found)[SPANS // 2] < 0.25 * sorted(truths)[SPANS // 2]


def test_energies_of_spans_without_a_pause_sum_to_what_the_counter_counted(machine: Machine) -> None:
    began_ns = time.time_ns()
    time.sleep(4.0)
    edges = [began_ns + number * 3 * SECOND_NS // TILES for number in range(TILES + 1)]
    tiles = [Interval(5_000 + number, *edges[number : number + 2]) for number in range(TILES)]
    *parts, whole = machine.joined([*tiles, Interval(6_000, edges[0], edges[-1])])
    total_j = sum(one["energy"] for one in parts)
    assert total_j == pytest.approx(whole["energy"], abs=1e-6)
    truth_j = machine.load.energy_j(edges[0], edges[-1])
    assert abs(total_j - truth_j) <= whole["energy.error"] + ROUNDING_J


def test_the_command_shows_the_gpus_beside_the_running_gateway(launcher: Launcher, machine: Machine) -> None:
    command = run_to_end(launcher, "gpu", "gpu", "--data-dir", str(machine.data_dir), "--format", "json")
    assert command.process.returncode == 0, command.text()
    (row,) = json.loads(command.text())
    assert (row["host"], row["gpu"], row["name"], row["index"]) == ("pod", machine.load.uuid, "NVIDIA L40S", 0)
    assert (row["memory_used_bytes"], row["memory_limit_bytes"]) == (8 * 2**30, 45 * 2**30)
    assert 80 <= row["power_w"] <= 700
    assert row["age_s"] < 3.0


def test_the_command_tells_why_a_span_is_not_complete(launcher: Launcher, machine: Machine) -> None:
    now_ns = time.time_ns()
    (found,) = machine.joined([Interval(7_000, now_ns - SECOND_NS, now_ns + 60 * SECOND_NS)])
    assert found["status"] == "partial"
    data = ("--data-dir", str(machine.data_dir), "--explain")

    def explained() -> str:
        command = run_to_end(launcher, "gpu", "gpu", *data, f"{7_000:032x}")
        return command.text() if command.process.returncode == 0 else ""

    text = until(explained, "the reason is in the journal")
    assert f"span {7_000:016x} stage render: partial" in text
    assert "it ends after the last sample" in text
    unknown = run_to_end(launcher, "unknown", "gpu", *data, f"{1:032x}")
    assert unknown.process.returncode == 1
    assert "nothing is known of the trace" in unknown.text()
    assert "Samples come from: pod" in unknown.text()


def test_the_command_asks_the_driver_of_this_machine(launcher: Launcher) -> None:
    load = Load(9)
    env = Gpus(launcher.folder / "gpus", [load]).environment
    command = run_to_end(launcher, "local", "gpu", "--local", "--format", "json", **env, RUNPOD_POD_ID="pod")
    assert command.process.returncode == 0, command.text()
    (row,) = json.loads(command.text())
    assert (row["host"], row["gpu"], row["name"]) == ("pod", load.uuid, "NVIDIA L40S")
    assert row["energy_j"] == pytest.approx(load.energy_j(load.began_ns, time.time_ns()), abs=700 * 5)
    assert 0 <= row["utilization"] <= 1
    without = run_to_end(launcher, "without", "gpu", "--local")
    assert without.process.returncode == 1
    assert without.text().startswith("otel-pipeline: the GPUs of this machine cannot be read: LIBRARY_NOT_FOUND")
    assert without.text().count("\n") == 1


def test_an_agent_without_a_driver_runs_and_says_so(launcher: Launcher, sink: Sink) -> None:
    agent = Agent(launcher, "bare", sink.port, {})
    agent.until_ready()
    agent.server.wait_until(lambda: "GPUs cannot be read: LIBRARY_NOT_FOUND" in agent.server.text(), "told")
    with Client(agent.grpc) as client:
        client.send(stages([Interval(1, 1, 2)], "bare"))
    until(lambda: any(b"stage render" in body for body in sink.bodies()), "the span")
