"""The demo, with its own configurations, in front of a real Jaeger and under a real Prometheus; and its ledger.

Producer and worker know nothing of OpenTelemetry; they run under `opentelemetry-instrument`.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from otel_pipeline.demo import gpus, producer
from otel_pipeline.demo.bill import wait_until_booked
from otel_pipeline.demo.environment import PORTS, Environment, prepare
from otel_pipeline.demo.redis_server import redis_server
from otel_pipeline.demo.spans import Reading, Span, read
from tests.benchmarks.process import accepts_connections, free_ports
from tests.e2e.gateway import Balance, balances
from tests.e2e.support import HOST, JaegerApi, Json, Launcher, Prometheus, Server, get, peer, python, until

JOBS = len(producer.MIX)
ATTEMPTS = JOBS + sum(kind == "retried" for kind, *_ in producer.MIX)
JOBS_S_MAX = 90.0
LEDGER_S_MAX = 60.0
ERROR_TYPES = {
    "out_of_memory": "ComfyUIError",
    "validation_error": "ComfyUIError",
    "execution_error": "ComfyUIError",
    "tts_rate_limited": "HTTPStatusError",
    "tts_broken": "HTTPStatusError",
}
"""What the worker tells of its failed jobs, by their kind."""
HTTP_ERRORS = {"400", "429", "500"}
PROMPT_ERRORS = {"torch.OutOfMemoryError", "ValueError", "prompt_outputs_failed_validation"}
QUEUE = producer.QUEUE
WORKER_SPANS = {f"process {QUEUE}", f"send {QUEUE}", "GET", "SET", "HSET", "EXPIRE", "POST"}
WORKER_SPANS |= {"comfyui.prompt", "comfyui.download"}
HTTP_KEYS = {"http.request.method", "http.response.status_code", "server.address", "server.port", "url.full"}
REDIS_KEYS = {"db.system.name", "db.query.text", "server.address", "server.port"}


@dataclass(frozen=True, slots=True)
class Played:
    """All jobs are done, the worker has ended, all else is running."""

    jaeger: JaegerApi
    prometheus: Prometheus
    file: Reading
    jobs: dict[str, tuple[str, str]]
    """What was to be expected of each job, and the status that the worker gave it."""
    balances: dict[tuple[str, str], Balance]
    environment: Environment

    def tags(self, name: str) -> list[Json]:
        """Of the worker's spans of this name in Jaeger."""
        spans = self.spans_in_jaeger("video-worker").values()
        return [{tag["key"]: tag["value"] for tag in span["tags"]} for span in spans if span["operationName"] == name]

    def ledger(self, *arguments: str) -> Any:
        """What a command beside the gateway answers, as JSON."""
        place = (*self.environment.data_dir_option, *self.environment.config_option)
        command = python("otel_pipeline", "ledger", *arguments, "--format", "json", *place)
        variables = self.environment.variables()
        done = subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, timeout=LEDGER_S_MAX)
        return json.loads(done.stdout)

    def spans_in_jaeger(self, service: str) -> dict[tuple[str, str], Json]:
        """By trace id and span id."""
        return {
            (span["traceID"], span["spanID"]): span
            for trace in self.jaeger.traces(service)
            for span in trace["spans"]
            if trace["processes"][span["processID"]]["serviceName"] == service
        }

    def of(self, service: str) -> list[Span]:
        return [span for span in self.file.spans if span.service == service]


@pytest.fixture(scope="module")
def played(module_launcher: Launcher) -> Iterator[Played]:
    jaeger = peer("jaeger")
    peer("prometheus")
    found = prepare(module_launcher.folder)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    environment = Environment(module_launcher.folder, ports, found.instrument, jaeger)
    with redis_server() as redis_url:
        _start_servers(module_launcher, environment)
        prometheus = Prometheus(module_launcher, {"gateway": ports["telemetry"], "platform": ports["metrics"]})
        worker = _start_worker(module_launcher, environment, redis_url)
        jobs = _run_jobs(module_launcher, environment, redis_url, worker)
        worker.terminate()
        assert worker.wait(40.0) == 0
        telemetry = ports["telemetry"]
        until(lambda: not sum(one.queued + one.parked for one in balances(telemetry).values()), "an empty outbox")
        with (module_launcher.folder / "traces.jsonl").open(encoding="utf-8") as lines:
            file = read(lines)
        wait_until_booked(environment.folder, time.time_ns(), LEDGER_S_MAX)
        yield Played(JaegerApi(ports["jaeger_ui"]), prometheus, file, jobs, balances(telemetry), environment)


def _start_servers(launcher: Launcher, environment: Environment) -> None:
    assert environment.jaeger
    variables = environment.variables()
    quiet = variables | {"OTEL_TRACES_SAMPLER": "always_off"}
    jaeger = launcher.start("jaeger", environment.jaeger_command(environment.jaeger), quiet)
    jaeger.wait_until(lambda: get(environment.url("jaeger_ui", "/"))[0] == 200, "ready")
    gateway = launcher.start("gateway", environment.gateway_command(), variables)
    gateway.wait_until(lambda: get(environment.url("health", "/readyz"))[0] == 200, "ready")


def _start_worker(launcher: Launcher, environment: Environment, redis_url: str) -> Server:
    comfyui, tts = free_ports(2)
    for name, port in (("comfyui", comfyui), ("tts", tts)):
        server = launcher.start(name, python(f"otel_pipeline.demo.{name}", "--port", str(port)))
        server.wait_until(partial(accepts_connections, port), "listening")
    launcher.start("gpus", environment.gpus_command(f"http://{HOST}:{comfyui}"), environment.variables())
    services = {
        "REDIS_URL": redis_url,
        "COMFYUI_URL": f"http://{HOST}:{comfyui}",
        "TTS_URL": f"http://{HOST}:{tts}",
        "OUTPUT_DIR": str(environment.folder / "output"),
    }
    variables = environment.instrumented_variables("video-worker") | services
    return launcher.start("worker", environment.instrumented_command("worker"), variables)


def _run_jobs(
    launcher: Launcher, environment: Environment, redis_url: str, worker: Server
) -> dict[str, tuple[str, str]]:
    variables = environment.instrumented_variables("video-api") | {"REDIS_URL": redis_url}
    sender = launcher.start("producer", environment.instrumented_command("producer", str(JOBS)), variables)
    assert sender.wait(60.0) == 0
    kinds = {kind for kind, *_ in producer.MIX}
    jobs = dict(line.split() for line in sender.text().splitlines() if line.partition(" ")[2] in kinds)
    assert len(jobs) == JOBS
    with redis.Redis.from_url(redis_url, decode_responses=True) as database:

        def finished() -> dict[str, tuple[str, str]]:
            found: dict[str, tuple[str, str]] = {}
            for job_id, kind in jobs.items():
                values: Any = database.hgetall(producer.STATUS_KEY.format(id=job_id))
                if values.get("status") in ("completed", "failed"):
                    found[job_id] = (kind, values["status"])
            return found

        worker.wait_until(lambda: len(finished()) == JOBS, "all jobs done", JOBS_S_MAX)
        return finished()


# -- traces ------------------------------------------------------------------------------------------------------------


def test_jobs_end_as_their_kind_says(played: Played) -> None:
    completed = {kind for kind, status in played.jobs.values() if status == "completed"}
    assert (
        completed == {"success", "cached", "retried"} == {kind for kind, _ in played.jobs.values()} - ERROR_TYPES.keys()
    )


def test_each_job_is_one_trace_from_its_enqueuing_on(played: Played) -> None:
    traces: defaultdict[str, list[Span]] = defaultdict(list)
    for span in played.file.spans:
        traces[span.trace_id].append(span)
    assert len(traces) == JOBS
    for spans in traces.values():
        [send] = [span for span in spans if not span.parent_id]
        first, *again = _attempts(spans)
        assert (send.name, send.service) == (f"send {QUEUE}", "video-api")
        assert (first.parent_id, first.service) == (send.span_id, "video-worker")
        for attempt in again:
            [sent_again] = [span for span in spans if span.span_id == attempt.parent_id]
            assert (sent_again.name, sent_again.parent_id) == (f"send {QUEUE}", first.span_id)
        assert len({span.attributes["otel_pipeline.job.id"] for span in spans}) == 1


def _attempts(spans: Iterable[Span]) -> list[Span]:
    """The spans of jobs, in the order of time."""
    return sorted((span for span in spans if span.name == f"process {QUEUE}"), key=lambda span: span.start_ns)


def test_each_job_came_out_as_the_worker_says(played: Played) -> None:
    told = {}
    for span in _attempts(played.of("video-worker")):
        kind = played.jobs[span.attributes["otel_pipeline.job.id"]][0]
        if kind == "retried" and span.attributes["otel_pipeline.job.attempt"] == "1":
            continue
        told[span.attributes["otel_pipeline.job.id"]] = (kind, span.attributes["otel_pipeline.job.outcome"])
        assert span.attributes.get("error.type") == ERROR_TYPES.get(kind)
        assert span.attributes["otel_pipeline.job.outcome_source"] == "status"
    assert told == played.jobs


def test_an_attempt_that_is_tried_again_has_failed(played: Played) -> None:
    [job_id] = [job_id for job_id, (kind, _) in played.jobs.items() if kind == "retried"]
    spans = played.of("video-worker")
    first, second = [span for span in _attempts(spans) if span.attributes["otel_pipeline.job.id"] == job_id]
    assert [span.attributes["otel_pipeline.job.attempt"] for span in (first, second)] == ["1", "2"]
    assert first.attributes["otel_pipeline.job.outcome"] == "failed"
    assert first.attributes["error.type"] == "torch.OutOfMemoryError"
    assert second.attributes["otel_pipeline.job.outcome"] == "completed"


@pytest.mark.parametrize("service", ["video-worker", "video-api"])
def test_jaeger_has_the_spans_of_the_file_with_their_ids(service: str, played: Played) -> None:
    in_file = {(span.trace_id, span.span_id): span for span in played.of(service)}
    in_jaeger = played.spans_in_jaeger(service)
    assert in_file
    assert in_jaeger.keys() == in_file.keys()
    assert {key: span["operationName"] for key, span in in_jaeger.items()} == {
        key: span.name for key, span in in_file.items()
    }
    assert {key: span["startTime"] for key, span in in_jaeger.items()} == {
        key: span.start_ns // 1000 for key, span in in_file.items()
    }
    assert played.file.repeated == 0


def test_polls_leave_no_spans(played: Played) -> None:
    names = Counter(span.name for span in played.of("video-worker"))
    assert set(names) == WORKER_SPANS
    assert names["HSET"] == names["EXPIRE"] >= 2 * JOBS
    paths = Counter(span.attributes.get("url.full", "").rpartition("/")[2] for span in played.of("video-worker"))
    assert paths["prompt"] == names["comfyui.prompt"]
    assert not [path for path in paths if "history" in path]


def test_the_attributes_of_a_span_are_those_of_the_conventions(played: Played) -> None:
    kinds: Counter[str] = Counter()
    for span in played.spans_in_jaeger("video-worker").values():
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        if span["operationName"] == f"process {QUEUE}":
            kinds["job"] += 1
            assert (tags["span.kind"], tags["messaging.system"]) == ("consumer", "redis")
            continue
        if span["operationName"] == f"send {QUEUE}":
            assert (tags["span.kind"], tags["messaging.system"]) == ("producer", "redis")
            continue
        assert tags["span.kind"] == "client"
        assert tags["server.address"] == HOST
        if span["operationName"] in {"GET", "SET", "HSET", "EXPIRE"}:
            kinds["redis"] += 1
            assert tags.keys() >= REDIS_KEYS
            assert tags["db.system.name"] == "redis"
        elif span["operationName"] == "POST":
            kinds["http"] += 1
            assert tags.keys() >= HTTP_KEYS
    assert kinds["job"] == ATTEMPTS
    assert min(kinds["http"], kinds["redis"]) > JOBS


def test_a_failure_is_an_error_where_it_happened_and_on_its_job(played: Played) -> None:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for span in played.spans_in_jaeger("video-worker").values():
        tags = {tag["key"]: tag["value"] for tag in span["tags"]}
        if tags.get("error"):
            found[span["operationName"]].add(tags["error.type"])
    assert found == {
        "POST": HTTP_ERRORS,
        "comfyui.prompt": PROMPT_ERRORS,
        f"process {QUEUE}": {*ERROR_TYPES.values(), "torch.OutOfMemoryError"},
    }


# -- GPUs and costs ----------------------------------------------------------------------------------------------------


def test_jaeger_has_what_the_gpu_did_during_each_job(played: Played) -> None:
    jobs = played.tags(f"process {QUEUE}")
    # A sampler that has to wait for a busy machine leaves gaps.
    assert {tags["otel_pipeline.gpu.status"] for tags in jobs} <= {"ok", "partial"}
    assert {tags["otel_pipeline.gpu.name"] for tags in jobs} == {gpus.NAME}
    assert {tags["otel_pipeline.gpu.ids"] for tags in jobs} == {json.dumps([gpus.BUSY_ID])}
    longest = max(jobs, key=lambda tags: float(tags["otel_pipeline.gpu.energy"]))
    assert longest["otel_pipeline.job.outcome"] == "completed"
    assert float(longest["otel_pipeline.gpu.power.mean"]) > 2 * gpus.IDLE_W
    assert float(longest["otel_pipeline.gpu.utilization.max"]) == gpus.BUSY_PERCENT / 100


def test_jaeger_has_what_each_job_and_prompt_cost_provisionally(played: Played) -> None:
    executed = [tags for tags in played.tags("comfyui.prompt") if "otel_pipeline.gpu.status" in tags]
    assert len(executed) > JOBS / 2
    for tags in [*played.tags(f"process {QUEUE}"), *executed]:
        told = {name: tags[f"otel_pipeline.cost.{name}"] for name in ("status", "basis", "price_id", "currency")}
        assert told == {"status": "provisional", "basis": "gpu_hour", "price_id": "demo-gpu", "currency": "USD"}
        assert 0 < float(tags["otel_pipeline.cost.amount"]) < 0.01


def test_jaeger_has_what_each_request_of_speech_cost(played: Played) -> None:
    answers: Counter[tuple[Any, ...]] = Counter()
    for tags in played.tags("POST"):
        if "text-to-speech" in tags["url.full"]:
            told = (tags[f"otel_pipeline.cost.{name}"] for name in ("status", "price_id", "amount"))
            answers[str(tags["http.response.status_code"]), *told] += 1
    assert answers == {
        ("200", "final", "demo-speech", 0.0015): ATTEMPTS - 2,
        ("429", "free", "demo-speech", 0): 1,
        ("500", "free", "demo-speech", 0): 1,
    }


def test_the_bill_of_each_gpu_is_what_its_spans_and_nobody_used(played: Played) -> None:
    told = played.ledger("report", "--from", "2020-01-01", "--by", "gpu")
    [total] = told["totals"]
    lines = {line["gpu"]: (Decimal(line["cost"]), Decimal(line["idle"])) for line in told["lines"]}
    assert lines.keys() == {gpus.BUSY_ID, gpus.IDLE_ID, "(direct)"}
    assert lines["(direct)"] == ((ATTEMPTS - 2) * Decimal("0.0015"), 0)
    assert sum(lines[gpus.BUSY_ID]) == sum(lines[gpus.IDLE_ID]), "both were there for the same time"
    assert lines[gpus.IDLE_ID][0] == 0 < min(*lines[gpus.BUSY_ID], lines[gpus.IDLE_ID][1])
    assert sum(map(sum, lines.values())) == Decimal(total["paid"])
    assert {"idle", "startup"} <= total["nobody"].keys()
    assert sum(map(Decimal, total["nobody"].values())) == sum(idle for _, idle in lines.values())


def test_a_job_is_charged_for_all_its_attempts_and_wastes_those_that_failed(played: Played) -> None:
    jobs = {line["job"]: line for line in played.ledger("jobs", "--from", "2020-01-01", "--sort", "last")}
    assert jobs.keys() == played.jobs.keys()
    for job_id, (kind, status) in played.jobs.items():
        line = jobs[job_id]
        cost, wasted = Decimal(line["cost"]), Decimal(line["wasted"])
        assert (line["attempts"], line["outcome"]) == (2 if kind == "retried" else 1, status)
        if kind == "retried":
            assert 0 < wasted < cost
        else:
            assert wasted == (0 if status == "completed" else cost)
    [total] = played.ledger("report", "--from", "2020-01-01")["totals"]
    assert sum(Decimal(line["cost"]) for line in jobs.values()) == Decimal(total["spent"])
    assert sum(Decimal(line["wasted"]) for line in jobs.values()) == Decimal(total["wasted"])


def test_the_ledger_proves_that_it_adds_up(played: Played) -> None:
    proof = played.ledger("verify", "--recompute")
    assert proof["deviations"] == []
    assert proof["spans"] > ATTEMPTS


# -- the gateway's own account -----------------------------------------------------------------------------------------


def test_the_balance_of_every_exporter_holds_and_nothing_waits(played: Played) -> None:
    exporters = {("traces", "file"), ("traces", "otlp/jaeger"), ("metrics", "prometheus"), ("logs", "file/logs")}
    assert played.balances.keys() == exporters
    for place, balance in played.balances.items():
        assert balance.holds, (place, balance)
        assert (balance.dropped, balance.queued) == (0, 0), (place, balance)
        assert balance.exported > 0, place
    traces = played.balances["traces", "file"]
    assert traces.exported == len(played.file.spans)
    assert 0 < traces.filtered <= JOBS, "the reports that lost_jobs takes out"


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_prometheus_counts_the_accepted_spans(played: Played) -> None:
    spans = len(played.file.spans) + played.balances["traces", "file"].filtered
    accepted = "sum(otelcol_receiver_accepted_spans_total)"
    assert until(lambda: played.prometheus.number(accepted) == spans, "the last scrape")


def test_prometheus_has_calls_and_errors_of_the_spans(played: Played) -> None:
    calls = 'sum(traces_span_metrics_calls_total{service_name="video-worker"})'
    failures = 'sum(traces_span_metrics_calls_total{service_name="video-worker",status_code="STATUS_CODE_ERROR"})'
    spans, failed = len(played.of("video-worker")), sum(span.failed for span in played.of("video-worker"))
    until(lambda: played.prometheus.number(calls) == spans, "the last scrape")
    assert played.prometheus.number(failures) == failed
    assert played.prometheus.number("sum(traces_span_metrics_errors_total)") == failed


def test_prometheus_has_durations_of_the_spans(played: Played) -> None:
    spans = len(played.file.spans)
    until(
        lambda: played.prometheus.number("sum(traces_span_metrics_duration_seconds_count)") == spans, "the last scrape"
    )
    jobs = f'traces_span_metrics_duration_seconds_count{{span_name="process {QUEUE}"}}'
    assert played.prometheus.number(f"sum({jobs})") == ATTEMPTS
    slowest = max(span.end_ns - span.start_ns for span in played.of("video-worker")) / 1e9
    assert played.prometheus.number("sum(traces_span_metrics_duration_seconds_sum)") >= slowest


def test_prometheus_has_the_metrics_that_the_worker_sent(played: Played) -> None:
    count = 'http_client_request_duration_seconds_count{job="platform"}'
    calls = sum("http.request.method" in span.attributes for span in played.of("video-worker"))
    until(lambda: played.prometheus.number(f"sum({count})") == calls, "the last export and scrape")
    failed = 'sum(http_client_request_duration_seconds_count{http_response_status_code="429"})'
    assert played.prometheus.number(failed) == 1


def test_prometheus_has_exemplars_that_lead_to_jaeger(played: Played) -> None:
    name = "traces_span_metrics_duration_seconds_bucket"
    series = until(lambda: played.prometheus.exemplars(name), "exemplars")
    found = {(one["labels"]["trace_id"], one["labels"]["span_id"]) for each in series for one in each["exemplars"]}
    assert found <= {(span.trace_id, span.span_id) for span in played.file.spans}
    trace_id, span_id = min(found)
    stored = played.jaeger.trace(trace_id)["resourceSpans"]
    assert span_id in [span["spanId"] for each in stored for scope in each["scopeSpans"] for span in scope["spans"]]
    newest_s = max(float(one["timestamp"]) for each in series for one in each["exemplars"])
    assert abs(time.time() - newest_s) < 600


def test_the_logs_of_the_worker_are_in_their_file(played: Played) -> None:
    folder = Path(played.prometheus.server.log).parent
    text = (folder / "logs.jsonl").read_text("utf-8")
    assert played.balances["logs", "file/logs"].exported >= 2 * JOBS
    assert "video_worker" in text
