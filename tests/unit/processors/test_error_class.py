"""The processor `error_class`: which rows it names, what it writes and counts."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_pipeline.contracts import Accepted, Context, RetryLater
from otel_pipeline.errors import ConfigError
from otel_pipeline.exposition.families import OVERFLOW, Exposition
from otel_pipeline.failures.logged import LoggedExceptions
from otel_pipeline.failures.news import News
from otel_pipeline.failures.occurrences import Group, decode
from otel_pipeline.processors.error_class import ErrorClassProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Value, any_value
from tests.support.fakes import RememberingEntrance

MARKS = ("class", "rule", "fingerprint", "retryable", "fault")


def put(message: Any, attributes: dict[str, Value] | None) -> None:
    for key, value in (attributes or {}).items():
        message.attributes.add(key=key).value.CopyFrom(any_value(value))


def span(
    name: str = "job", *, status: int = 2, described: str = "", exception: tuple[str, ...] = (), **attributes: Value
) -> Span:
    made = Span(trace_id=b"t" * 16, span_id=b"s" * 8, name=name)
    made.status.code = status  # type: ignore[assignment]  # an enum's number
    made.status.message = described
    if exception:
        event = made.events.add(name="exception")
        put(event, dict(zip(("exception.type", "exception.message", "exception.stacktrace"), exception, strict=False)))
    put(made, {key.replace("__", "."): value for key, value in attributes.items()})
    return made


def record(*, severity: int = 17, span_id: bytes = b"", **attributes: Value) -> LogRecord:
    made = LogRecord(severity_number=severity, span_id=span_id)  # type: ignore[arg-type]  # an enum's number
    put(made, {key.replace("__", "."): value for key, value in attributes.items()})
    return made


class Bench:
    """A processor and what came out of it."""

    def __init__(self, **settings: Any) -> None:
        self.exposition, self.stats = Exposition(lambda: 1000.0), Stats()
        self.book: Any = SimpleNamespace(news=deque())
        self.left: list[bytes] = []
        loop: Any = None
        config = ErrorClassProcessor.Config.model_validate(settings)
        books = dict.fromkeys(ErrorClassProcessor.books(config), self.book)
        context = Context("error_class", self.stats, self.exposition, loop, signal=Signal.LOGS, books=books)
        self.processor = ErrorClassProcessor(config, context)

    def spans(self, *spans: Span) -> list[dict[str, Any]]:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        put(group.resource, {"service.name": "worker"})
        group.scope_spans.add().spans.extend(spans)
        parsed = ExportTraceServiceRequest.FromString(self._through(Signal.TRACES, request.SerializeToString()))
        return [attributes(one) for one in parsed.resource_spans[0].scope_spans[0].spans]

    def records(self, *records: LogRecord) -> list[dict[str, Any]]:
        request = ExportLogsServiceRequest()
        request.resource_logs.add().scope_logs.add().log_records.extend(records)
        parsed = ExportLogsServiceRequest.FromString(self._through(Signal.LOGS, request.SerializeToString()))
        return [attributes(one) for one in parsed.resource_logs[0].scope_logs[0].log_records]

    def counted(self) -> dict[tuple[str, ...], float]:
        """The counter by class, service, backend, model and fault."""
        return {
            tuple(sample.labels[label] for label in ("class", "service", "backend", "model", "fault")): sample.value
            for metric in self.exposition.collect()
            for sample in metric.samples
            if sample.name == "otel_pipeline_errors_total"
        }

    def how(self, name: str) -> float:
        return (
            self.stats.registry.get_sample_value(
                "otel_pipeline_classified_failures_total", {"processor": "error_class", "how": name}
            )
            or 0.0
        )

    def _through(self, signal: Signal, request: bytes) -> bytes:
        batch = BatchReader(signal, self.processor.attributes(signal)).read([request])[0]
        self.processor.process(batch)
        self.left += [record for _, record in batch.records]
        return bytes(batch.encode())


def attributes(message: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in message.attributes}


def marks(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[f"otel_pipeline.error.{name}"] for name in MARKS if f"otel_pipeline.error.{name}" in found}


def test_a_failed_span_gets_its_marks() -> None:
    found = Bench().spans(span(exception=("torch.OutOfMemoryError", "Allocation on device")))[0]
    told = marks(found)
    assert len(told.pop("fingerprint")) == 16
    assert told == {"class": "GPU_OOM_ERROR", "rule": "gpu-oom", "retryable": True, "fault": "platform"}
    assert found["error.type"] == "torch.OutOfMemoryError"


def test_a_gpu_without_memory_has_a_metric_of_its_own() -> None:
    bench = Bench()
    oom = ("torch.OutOfMemoryError", "Allocation on device")
    bench.spans(span(exception=oom, gen_ai__request__model="flux-1-dev"), span(exception=("ValueError", "x")))
    found = [
        one for metric in bench.exposition.collect() for one in metric.samples if "out_of_memory_total" in one.name
    ]
    assert [(one.labels, one.value) for one in found] == [
        ({"service": "worker", "backend": "", "model": "flux-1-dev"}, 1.0)
    ]


def test_what_did_not_fail_is_left_alone() -> None:
    bench = Bench()
    quiet = span(status=0, exception=("torch.OutOfMemoryError", "x"))
    assert bench.spans(quiet, span(status=1)) == [{}, {}]
    assert bench.counted() == {}


def test_an_error_type_that_is_there_stays() -> None:
    assert Bench().spans(span(exception=("a.B", "x"), error__type="500"))[0]["error.type"] == "500"


@pytest.mark.parametrize(
    ("failed", "name"),
    [
        (span(described="Connection refused"), "NETWORK_ERROR"),
        (span(http__response__status_code=429), "RATE_LIMIT_ERROR"),
        (span(http__status_code=404, http__url="https://storage.googleapis.com/b/o.png"), "STORAGE_ERROR"),
        (span(http__status_code=404, http__url="https://api.replicate.com/v1/models/x"), "FLUX_API_ERROR"),
        (span(http__status_code=404, http__url="https://huggingface.co/x/model.bin"), "MODEL_INFERENCE_ERROR"),
        (span(http__status_code=404, http__url="https://shop.example/x"), "UNKNOWN_ERROR"),
        (span(rpc__grpc__status_code=4), "TIMEOUT_ERROR"),
        (span(comfyui__outcome="interrupted"), "CANCELLED"),
        (span(comfyui__outcome="refused", comfyui__validation__error_type="value_not_in_list"), "VALIDATION_ERROR"),
        (span(comfyui__error__node__type="DWPreprocessor", exception=("ValueError", "x")), "CONTROLNET_ERROR"),
        (span(otel_pipeline__job__outcome="lost"), "QUEUE_ERROR"),
        (span(otel_pipeline__job__outcome="cancelled"), "CANCELLED"),
        (span("SELECT jobs", db__system__name="postgresql", exception=("TimeoutError", "")), "DATABASE_ERROR"),
        (span(), "UNKNOWN_ERROR"),
    ],
)
def test_evidence_may_be_anything_that_the_span_has(failed: Span, name: str) -> None:
    assert marks(Bench().spans(failed)[0])["class"] == name


@pytest.mark.parametrize(
    "noise",
    [
        span("GET /healthz", http__response__status_code=503),
        span("GET", http__route="/api/health", http__response__status_code=500),
        span("GET", user_agent__original="kube-probe/1.31", http__response__status_code=500),
        span("grpc.health.v1.Health/Check", rpc__grpc__status_code=14),
        span("HEAD", http__request__method="HEAD", http__response__status_code=404),
    ],
)
def test_health_checks_and_questions_are_left_alone_and_counted(noise: Span) -> None:
    bench = Bench()
    assert marks(bench.spans(noise)[0]) == {}
    assert bench.how("noise") == 1
    assert marks(Bench(health_checks=True).spans(noise)[0])


def test_log_records_of_exceptions_are_named_from_severity_error_on() -> None:
    told: dict[str, Value] = {"exception__type": "httpx.ReadTimeout", "exception__message": "x"}
    bench = Bench()
    found = bench.records(record(**told), record(severity=13, **told), record(severity=0, **told), record())
    assert [marks(one).get("class") for one in found] == ["TIMEOUT_ERROR", None, "TIMEOUT_ERROR", None]


def test_records_of_a_span_are_not_counted_again() -> None:
    bench = Bench()
    bench.records(record(exception__type="a.B", span_id=b"s" * 8), record(exception__type="a.B"))
    assert bench.counted() == {("UNKNOWN_ERROR", "", "", "", "platform"): 1}


def test_failures_are_counted_by_class_service_backend_model_and_fault() -> None:
    bench = Bench()
    slow: dict[str, Value] = {"gen_ai__provider__name": "fal", "gen_ai__request__model": "flux-dev"}
    bench.spans(
        span(exception=("httpx.ReadTimeout", ""), **slow), span(server__address="pg", db__system="redis"), span()
    )
    assert bench.counted() == {
        ("TIMEOUT_ERROR", "worker", "fal", "flux-dev", "provider"): 1,
        ("DATABASE_ERROR", "worker", "redis", "", "platform"): 1,
        ("UNKNOWN_ERROR", "worker", "", "", "platform"): 1,
    }


def test_series_are_bounded() -> None:
    bench = Bench(series_max=1)
    bench.spans(*(span(gen_ai__request__model=f"m{number}") for number in range(3)))
    assert (OVERFLOW,) * 5 in bench.counted()


def test_equal_failures_are_looked_at_once() -> None:
    bench = Bench()
    failed = span(exception=("a.B", "x"), url__full="https://a.example/1")
    again = span(exception=("a.B", "x"), url__full="https://a.example/2")
    bench.spans(failed, again)
    bench.spans(again)
    assert (bench.how("judged"), bench.how("remembered"), bench.how("coarse")) == (2, 1, 0)


def test_a_storm_of_new_failures_is_bounded() -> None:
    bench = Bench(judged_max=2)
    found = bench.spans(*(span(exception=("redis.exceptions.ConnectionError", f"{word} broke")) for word in "abcde"))
    assert (bench.how("judged"), bench.how("coarse")) == (2, 3)
    assert [marks(one)["class"] for one in found] == ["DATABASE_ERROR"] * 5
    assert sum("fingerprint" in marks(one) for one in found) == 2


def test_own_rules_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("rules: [{id: own, class: CANCELLED, when: {type: a.B}, examples: [{type: a.B}]}]")
    assert marks(Bench(rules_file=file).spans(span(exception=("a.B", "")))[0])["rule"] == "own"
    file.write_text("rules: 3")
    with pytest.raises(ConfigError):
        Bench(rules_file=file)


def test_other_signals_are_ignored() -> None:
    assert not Bench().processor.attributes(Signal.METRICS)
    batch = BatchReader(Signal.METRICS).read([b""])[0]
    Bench().processor.process(batch)


STACK = """Traceback (most recent call last):
  File "/app/render.py", line 12, in render
    frames = decode(clip)
ValueError: no frame in clip"""


def logged(**more: Any) -> LogRecord:
    told = {"exception__type": "torch.OutOfMemoryError", "exception__message": "Allocation on device", **more}
    made = record(span_id=b"s" * 8, **told)
    made.trace_id = b"t" * 16
    return made


def test_a_failed_span_without_an_exception_gets_the_one_that_was_logged_in_it() -> None:
    bench = Bench()
    (of_record,) = bench.records(logged())
    found, other = bench.spans(span(described="it failed"), Span(name="x", span_id=b"o" * 8, status={"code": 2}))  # type: ignore[arg-type]
    assert marks(found) == marks(of_record)
    assert marks(found)["class"] == "GPU_OOM_ERROR"
    assert found["error.type"] == "torch.OutOfMemoryError"
    assert marks(other)["class"] == "UNKNOWN_ERROR"


def test_a_spans_own_exception_comes_before_a_logged_one() -> None:
    bench = Bench()
    bench.records(logged())
    (found,) = bench.spans(span(exception=("redis.exceptions.ConnectionError", "Connection refused")))
    assert marks(found)["class"] == "DATABASE_ERROR"


def test_logged_exceptions_are_forgotten_at_the_bound_the_oldest_first() -> None:
    bench = Bench()
    memory = LoggedExceptions(chars_max=1000)
    bench.processor._logged = memory
    for number in range(10):
        told = logged(exception__message="m" * 300)
        told.span_id = bytes([number + 1]) * 8
        bench.records(told)
    assert len(memory._known) == 2
    (old, new) = bench.spans(
        *(Span(name="x", trace_id=b"t" * 16, span_id=bytes([n]) * 8, status={"code": 2}) for n in (1, 10))
    )  # type: ignore[arg-type]
    assert marks(old)["class"] == "UNKNOWN_ERROR"
    assert marks(new)["class"] == "GPU_OOM_ERROR"


def test_failures_are_left_for_the_store_one_row_each_and_one_group_a_fingerprint() -> None:
    bench = Bench()
    alike = [span(exception=("ValueError", f"no frame {number} in clip", STACK)) for number in range(3)]
    for number, one in enumerate(alike):
        one.end_time_unix_nano = 1_700_000_000_000_000_000 + number
    found = bench.spans(*alike, span(status=0), span(described="Connection refused"))
    (left,) = bench.left
    told = decode(left)
    assert [group.fingerprint for group in told.groups] == list(
        dict.fromkeys(marks(one)["fingerprint"] for one in found if marks(one))
    )
    assert {group.name for group in told.groups} == {"UNKNOWN_ERROR", "NETWORK_ERROR"}
    assert told.services == ["worker"]
    assert len(told.table) == 4
    assert sorted(told.table[:, 2].tolist()) == [0, *(1_700_000_000_000_000_000 + number for number in range(3))]
    assert set(told.table[:, 5].tolist()) == {int.from_bytes(b"s" * 8, "big")}


def test_failures_that_were_not_looked_at_are_one_group_of_their_class() -> None:
    bench = Bench(judged_max=1)
    bench.spans(*(span(exception=("ValueError", text)) for text in ("one thing", "another matter", "something else")))
    marks_left = {group.fingerprint for group in decode(bench.left[0]).groups}
    assert len(marks_left) == 2
    assert "coarse-unknown_error" in marks_left


def test_nothing_is_left_without_failures_or_when_groups_are_off() -> None:
    bench = Bench()
    bench.spans(span(status=0))
    off = Bench(groups=False)
    off.spans(span())
    assert bench.left == off.left == []


def test_news_of_groups_become_log_records_linked_to_their_span() -> None:
    bench = Bench()
    told = ("platform", "torch.OutOfMemoryError", "no memory", "render")
    group = Group("f" * 16, "GPU_OOM_ERROR", "gpu-oom", True, *told)  # noqa: FBT003
    bench.book.news.append(News("new", group, "worker", "0a" * 16, "0b" * 8, 5))
    bench.book.news.append(News("regressed", group, "worker", "", "", 6))
    entrance = RememberingEntrance(RetryLater(1.0, "full"), Accepted())

    async def live() -> None:
        task = asyncio.create_task(bench.processor.originate(entrance))
        while bench.book.news or len(entrance.bodies) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(live())
    first, second = (ExportLogsServiceRequest.FromString(body) for body in entrance.bodies)
    assert first == second, "what was refused comes again"
    new, again = second.resource_logs[0].scope_logs[0].log_records
    assert (new.event_name, again.event_name) == (
        "otel_pipeline.error_group.new",
        "otel_pipeline.error_group.regressed",
    )
    assert (new.trace_id, new.span_id) == (b"\x0a" * 16, b"\x0b" * 8)
    assert marks(attributes(new))["class"] == "GPU_OOM_ERROR"
    assert new.body.string_value == "new failure GPU_OOM_ERROR in worker: torch.OutOfMemoryError no memory"


def nested(*, told: tuple[str, str] = ("ValueError", "no frame")) -> list[Span]:
    """A failed call in a failed stage in a failed job."""
    made = [span(name, exception=told) for name in ("call", "stage", "job")]
    for number, one in enumerate(made, 1):
        one.span_id, one.parent_span_id = bytes([number]) * 8, bytes([number + 1]) * 8 if number < 3 else b""
        one.end_time_unix_nano = 1_700_000_000_000_000_000 + number
    return made


def left_names(bench: Bench) -> list[list[str]]:
    """Of each record the span names of its groups."""
    return [sorted(group.span_name for group in decode(left).groups) for left in bench.left]


def test_a_failure_that_passes_through_its_parents_is_kept_once() -> None:
    bench = Bench()
    assert all(marks(one) for one in bench.spans(*reversed(nested())))
    assert left_names(bench) == [["call"]]
    one_by_one = Bench()
    for one in nested():
        one_by_one.spans(one)
    assert left_names(one_by_one) == [["call"]]


def test_a_parent_that_fails_in_another_way_stands_for_itself() -> None:
    bench = Bench()
    call, stage, _ = nested(told=("redis.exceptions.ConnectionError", "Connection refused"))
    bench.spans(call, nested()[1])
    assert left_names(bench) == [["call", "stage"]]
    assert stage.name == "stage"


def test_a_call_that_tells_its_status_only_leaves_the_word_to_its_parent() -> None:
    bench = Bench()
    call, stage, job = nested(told=("", ""))
    call.attributes.add(key="http.response.status_code").value.int_value = 500
    bench.spans(call)
    assert decode(bench.left[0]).groups[0].message == "HTTP 500"
    for one in (stage, job):
        one.status.message = "render failed"
    bench.spans(stage, job)
    assert left_names(bench) == [["call"], ["stage"]]


def test_a_record_of_a_failure_that_its_span_or_a_child_has_told_is_not_kept_again() -> None:
    bench = Bench()
    call, stage, _ = nested(told=("torch.OutOfMemoryError", "Allocation on device"))
    call.trace_id = stage.trace_id = b"t" * 16
    bench.spans(call)
    of_call, of_stage, other = logged(), logged(), logged(exception__type="redis.ConnectionError")
    of_call.span_id, of_stage.span_id, other.span_id = b"\x01" * 8, b"\x02" * 8, b"\x02" * 8
    bench.records(of_call, of_stage)
    assert len(bench.left) == 1
    bench.records(of_stage, other)
    assert len(decode(bench.left[1]).table) == 1


def test_a_request_that_comes_again_leaves_the_same_record() -> None:
    bench = Bench()
    bench.spans(*nested())
    bench.spans(*nested())
    assert bench.left[0] == bench.left[1]
