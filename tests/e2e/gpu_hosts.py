"""Hosts with GPUs for end-to-end tests: agents over the stub of NVML on the real clock, and the load that it plays."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_pipeline.wire.values import any_value, python_value
from tests.benchmarks.process import free_ports
from tests.e2e.support import HOST, Json, Launcher, Server, environment, get, python
from tests.support import nvml_stub

SECOND_NS: Final = 1_000_000_000
PREFIX: Final = "otel_pipeline.gpu."
COUNTER_STEP_S: Final = 0.1
ROUNDING_J: Final = 0.002
"""The counter is told in whole mJ."""


class Load:
    """A GPU whose power changes at random, known at every moment from `began_ns` on."""

    def __init__(self, seed: int, duration_s: float = 90.0) -> None:
        chance = random.Random(seed)
        self.began_ns = time.time_ns()
        self.uuid = f"GPU-{seed:08d}-aaaa-bbbb-cccc-000000000000"
        self._steps = [(0.0, 120.0)]
        while self._steps[-1][0] < duration_s:
            self._steps.append(
                (round(self._steps[-1][0] + chance.uniform(0.3, 1.5), 3), float(chance.randint(80, 700)))
            )

    def lines(self) -> str:
        """For the stub's control file."""
        power = " ".join(f"{at:g}={watts:g}" for at, watts in self._steps)
        busy = " ".join(f"{at:g}={min(100, watts / 7):.0f}" for at, watts in self._steps)
        return "\n".join(
            (
                f"gpu {self.uuid}",
                "name NVIDIA L40S",
                "memory_total 48318382080",
                "step memory_used 0=8589934592",
                f"step utilization {busy}",
                f"step power {power}",
                f"energy_update_s {COUNTER_STEP_S}",
            )
        )

    def energy_j(self, start_ns: int, end_ns: int) -> float:
        """The area below the curve."""
        start_s, end_s = ((at - self.began_ns) / SECOND_NS for at in (start_ns, end_ns))
        ends = [at for at, _ in self._steps[1:]] + [float("inf")]
        return sum(
            watts * max(0.0, min(until, end_s) - max(at, start_s))
            for (at, watts), until in zip(self._steps, ends, strict=True)
        )


class Gpus:
    """The stub in a folder, showing the loads on the real clock."""

    def __init__(self, folder: Path, loads: Sequence[Load]) -> None:
        folder.mkdir(exist_ok=True)
        self._control, clock = folder / "nvml.control", folder / "nvml.clock"
        clock.write_bytes(struct.pack("qq", 0, 1))  # 0: the real clock
        lines = [f"origin_ns {loads[0].began_ns}", *(load.lines() for load in loads)]
        self._control.write_text("\n".join(lines) + "\n", encoding="ascii")
        self.environment = {
            "LD_LIBRARY_PATH": str(nvml_stub.built()),
            "NVML_STUB_CONTROL": str(self._control),
            "NVML_STUB_CLOCK": str(clock),
        }


class Agent:
    """`otel-pipeline agent` with its own configuration, on ports of its own."""

    def __init__(self, launcher: Launcher, name: str, gateway: int, env: dict[str, str]) -> None:
        self.host_id = name
        self.data_dir = launcher.folder / f"{name}-data"
        self.grpc, http, health, own = free_ports(4)
        self._health = health
        places = {
            "receivers.otlp.protocols.grpc.endpoint": self.grpc,
            "receivers.otlp.protocols.http.endpoint": http,
            "extensions.health_check.endpoint": health,
            "service.telemetry.metrics.address": own,
        }
        settings = {key: f"{HOST}:{port}" for key, port in places.items()}
        settings["exporters.otlp.retry_on_failure"] = "{initial_interval: 50ms, max_interval: 200ms}"
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        # RunPod's variable is what tells host.id apart for two agents of one machine.
        own_env = environment(OTEL_PIPELINE_GATEWAY=f"{HOST}:{gateway}", RUNPOD_POD_ID=name, **env)
        command = python("otel_pipeline", "agent", *words, "--data-dir", str(self.data_dir))
        self.server: Server = launcher.start(name, command, own_env)

    def until_ready(self) -> None:
        self.server.wait_until(lambda: get(f"http://{HOST}:{self._health}/readyz")[0] == 200, "ready")


@dataclass(frozen=True, slots=True)
class Interval:
    """A span to be sent."""

    number: int
    start_ns: int
    end_ns: int

    @property
    def span_id(self) -> bytes:
        return self.number.to_bytes(8, "big")


def stages(intervals: Iterable[Interval], host_id: str | None, **attributes: Any) -> bytes:
    """A request of a worker on a host; None: what is not told."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    if host_id is not None:
        group.resource.attributes.add(key="host.id").value.string_value = host_id
    scope = group.scope_spans.add()
    for one in intervals:
        span = scope.spans.add(
            trace_id=one.number.to_bytes(16, "big"),
            span_id=one.span_id,
            name="stage render",
            start_time_unix_nano=one.start_ns,
            end_time_unix_nano=one.end_ns,
        )
        for key, value in {"otel_pipeline.stage.name": "render", **attributes}.items():
            span.attributes.add(key=key).value.CopyFrom(any_value(value))
    return request.SerializeToString()


def told(span: Span) -> Json:
    """What is said of the GPUs on a span."""
    return {
        pair.key.removeprefix(PREFIX): python_value(pair.value)
        for pair in span.attributes
        if pair.key.startswith(PREFIX)
    }
