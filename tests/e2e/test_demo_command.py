"""`otel-pipeline demo` from end to end, as somebody who tries it sees it."""

from __future__ import annotations

import json
import re
import sys

from otel_pipeline.demo.environment import PORTS
from tests.benchmarks.process import free_ports
from tests.e2e.support import Launcher, environment, get, until

DEMO_S_MAX = 90.0
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


def test_the_demo_draws_traces_and_tells_where_to_look(launcher: Launcher) -> None:
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
    assert "Traceback" not in text
    assert "more:" not in text, "no trace that is not a job"
    assert not list(launcher.folder.glob("otel-pipeline-*")), "the demo cleans up behind itself"


def test_the_demo_that_keeps_running_can_be_looked_at_and_ends_with_sigterm(launcher: Launcher) -> None:
    demo = launcher.start("demo", command("--jobs", "2", "--keep-running"), environment(TMPDIR=str(launcher.folder)))
    demo.wait_until(lambda: "more jobs" in demo.text(), "where to look", DEMO_S_MAX)
    places = dict(re.findall(r"^  ([a-zJ, ]+?)  +(\S+)", demo.text(), re.MULTILINE))
    assert get(places["health"])[0] == 200
    platform = places["metrics of the platform"]
    until(lambda: b"http_client_request_duration_seconds_count" in get(platform)[1], "metrics of the worker")
    assert b"traces_span_metrics_calls_total" in get(platform)[1]
    assert b"otelcol_receiver_accepted_spans_total" in get(places["metrics of the gateway"])[1]
    demo.terminate()
    assert demo.wait(DEMO_S_MAX) == 0
    assert demo.text().splitlines()[-1] == "stopped"
    assert get(places["health"])[0] == 0
