"""`otel-pipeline demo` from end to end, as somebody who tries it sees it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from datetime import datetime
from decimal import Decimal

from otel_pipeline.demo import gpus
from otel_pipeline.demo.environment import PORTS
from tests.benchmarks.process import free_ports
from tests.e2e.support import Launcher, environment, get, python, until

DEMO_S_MAX = 150.0
PRICE_S = Decimal("0.0002")
"""Of a second of a simulated GPU, by the demo's price file."""
PROGRAM = """
import json, sys
from otel_pipeline.demo import environment
environment.PORTS = json.loads(sys.argv.pop(1))  # the ports that people know may be somebody's
from otel_pipeline.cli import main
main()
"""


def command(*arguments: str) -> tuple[str, ...]:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return (sys.executable, "-c", PROGRAM, json.dumps(ports), "demo", *arguments)


def table(text: str, title: str) -> list[dict[str, str]]:
    """The rows of the table below a title. Values have no blanks, and those that are left out stand at the end."""
    lines = iter(text.partition(f"\n{title}")[2].splitlines())
    names: list[str] = []
    rows = []
    for line in lines:
        if "  currency  " in line or line.rstrip().endswith("  currency"):
            names = re.split(r"  +", line.strip())
            starts = [line.index(name) for name in names]
        elif names and not line.strip():
            break
        elif names:
            ends = [*starts[1:], len(line)]
            rows.append({name: line[a:b].strip() for name, a, b in zip(names, starts, ends, strict=True)})
    assert rows, f"no table below {title!r} in:\n{text}"
    return rows


def test_the_demo_draws_traces_and_a_bill_and_tells_where_to_look(launcher: Launcher) -> None:
    demo = launcher.start("demo", command("--jobs", "4"), environment(TMPDIR=str(launcher.folder)))
    assert demo.wait(DEMO_S_MAX) == 0
    text = demo.text()
    statuses = re.findall(r"^  job \w{8} (\w+) +(completed|failed)", text, re.MULTILINE)
    assert dict(statuses) == {
        "success": "completed",
        "out_of_memory": "failed",
        "cached": "completed",
        "validation_error": "failed",
    }
    assert len(re.findall(r"^trace [0-9a-f]{32} · \d+ spans? · ", text, re.MULTILINE)) == 4
    assert len(re.findall(r"^● send video_orchestrator:queue · .* · video-api", text, re.MULTILINE)) == 4
    assert len(re.findall(r"└─ process video_orchestrator:queue · .* · video-worker", text)) == 4
    for place in ("metrics of the platform", "metrics of the gateway", "health", "traces, logs, configuration"):
        assert re.search(rf"^  {place} +\S+", text, re.MULTILINE), place
    the_bill_adds_up(text)
    assert "Traceback" not in text
    assert "more:" not in text, "no trace that is not a job"
    assert not list(launcher.folder.glob("otel-pipeline-*")), "the demo cleans up behind itself"


def the_bill_adds_up(text: str) -> None:
    """What GPUs, backends and jobs cost is what was paid; two GPUs were paid for, and one of them was used."""
    [paid, used, nobody, wasted] = map(
        Decimal, re.findall(r"^paid (\S+) USD, used (\S+), nobody's (\S+), wasted (\S+) ", text, re.MULTILINE)[0]
    )
    by_gpu = {row["gpu"]: row for row in table(text, "What each GPU cost")}
    cost = {gpu: Decimal(row["cost"]) for gpu, row in by_gpu.items()}
    idle = {gpu: Decimal(row["idle"]) for gpu, row in by_gpu.items()}
    assert cost.keys() == {gpus.BUSY_ID, gpus.IDLE_ID, "(direct)"}
    assert (sum(cost.values()), sum(idle.values()), used + nobody) == (used, nobody, paid)
    assert cost[gpus.IDLE_ID] == idle["(direct)"] == 0 < cost[gpus.BUSY_ID]
    assert cost["(direct)"] == 4 * Decimal("0.0015"), "four requests of speech"
    for gpu in (gpus.BUSY_ID, gpus.IDLE_ID):
        assert cost[gpu] + idle[gpu] == seconds_billed(text) * PRICE_S
    backends = table(text, "What each backend cost")
    assert sum(Decimal(row["cost"]) for row in backends) == paid
    assert {"(nobody: idle)", "(nobody: startup)", "demo-speech"} <= {row["backend"] for row in backends}
    jobs = table(text, "What each job cost")
    assert sum(Decimal(row["cost"]) for row in jobs) == used
    assert sum(Decimal(row["wasted"]) for row in jobs) == wasted
    assert {row["workflow"] for row in jobs if Decimal(row["wasted"])} == {"portrait_8k", "portrait_missing_checkpoint"}
    assert re.search(r"^\d+ periods, .*; 0 hours wait to be booked; 0 deviations$", text, re.MULTILINE)


def seconds_billed(text: str) -> int:
    """From the begin of the minute in which the GPUs were seen first until what is booked."""
    [told, *_] = re.findall(r"^\S+Z to (\S+)$", text, re.MULTILINE)
    booked = datetime.fromisoformat(told)
    first = min(row["ended"] for row in table(text, "What each job cost"))
    began = datetime.fromisoformat(first).replace(second=0)
    seen = Decimal(next(row["idle"] for row in table(text, "What each GPU cost") if row["gpu"] == gpus.IDLE_ID))
    seconds = int(seen / PRICE_S)
    assert seconds >= (booked - began).total_seconds(), "GPUs were there before the first job ended"
    assert (booked.second - seconds) % 60 == 0, "samples pay for whole minutes from their first"
    return seconds


def test_the_demo_that_keeps_running_can_be_looked_at_and_ends_with_sigterm(launcher: Launcher) -> None:
    demo = launcher.start("demo", command("--jobs", "2", "--keep-running"), environment(TMPDIR=str(launcher.folder)))
    demo.wait_until(lambda: "more jobs" in demo.text(), "where to look", DEMO_S_MAX)
    places = dict(re.findall(r"^  ([a-zJ, ]+?)  +(\S.*)", demo.text(), re.MULTILINE))
    program, *words = shlex.split(places["costs"])
    assert program == "otel-pipeline"
    typed = subprocess.run(
        python("otel_pipeline", *words), capture_output=True, check=True, env=environment(), text=True, timeout=60
    )
    assert gpus.BUSY_ID in typed.stdout, "the command that is shown works as it is shown"
    assert get(places["health"])[0] == 200
    platform = places["metrics of the platform"]
    until(lambda: b"http_client_request_duration_seconds_count" in get(platform)[1], "metrics of the worker")
    assert b"traces_span_metrics_calls_total" in get(platform)[1]
    assert b"otelcol_receiver_accepted_spans_total" in get(places["metrics of the gateway"])[1]
    demo.terminate()
    assert demo.wait(DEMO_S_MAX) == 0
    assert demo.text().splitlines()[-1] == "stopped"
    assert get(places["health"])[0] == 0
