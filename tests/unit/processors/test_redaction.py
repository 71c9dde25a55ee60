"""Processor redaction: settings, counters, its place in the pipeline, and that it fails closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

from otel_pipeline.config.loader import load
from otel_pipeline.contracts import Context
from otel_pipeline.errors import ConfigError
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.pipeline import REDACTION_FAILED, Pipeline
from otel_pipeline.processors.redaction import RedactionProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.signal import Signal
from tests.support import otlp

MAIL = "joe@example.com"


def processor(stats: Stats, *, directory: Path | None = None, **settings: Any) -> RedactionProcessor:
    loop: Any = None
    context = Context("redaction", stats, Exposition(), loop, common_directory=directory)
    return RedactionProcessor(RedactionProcessor.Config(**settings), context)


def request(*names: str) -> bytes:
    """Spans of these names."""
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    for index, name in enumerate(names, 1):
        scope.spans.add(name=name, trace_id=bytes([index] * 16), span_id=bytes([index] * 8))
    return message.SerializeToString()


def counted(stats: Stats, kind: str) -> float | None:
    labels = {"processor": "redaction", "kind": kind}
    return stats.registry.get_sample_value("otel_pipeline_redacted_values_total", labels)


def test_what_it_removes_is_counted_by_kind() -> None:
    stats = Stats()
    clean = processor(stats).rewrite(Signal.TRACES, request(f"mail to {MAIL} and {MAIL}", "card 4111 1111 1111 1111"))
    assert MAIL.encode() not in clean
    assert counted(stats, "email") == 2
    assert counted(stats, "card") == 1
    assert counted(stats, "phone") == 0


def test_a_kind_that_is_switched_off_stays() -> None:
    body = request(MAIL)
    assert processor(Stats(), disabled_kinds=["email"]).rewrite(Signal.TRACES, body) is body


def test_unknown_kinds_and_tiny_caps_are_mistakes() -> None:
    for wrong in ({"disabled_kinds": ["mail"]}, {"max_value_bytes": 10}, {"denied_keys": [""]}):
        with pytest.raises(ValidationError):
            RedactionProcessor.Config(**wrong)


def test_the_pipeline_sees_and_passes_on_what_was_cleaned() -> None:
    stats = Stats()
    pipeline = Pipeline("traces", Signal.TRACES, [("redaction", processor(stats))], stats)
    addition, parts = pipeline.process([request(f"mail to {MAIL}"), request("fine")])
    assert otlp.span_names(addition.payload) == ["mail to [redacted:email]", "fine"]
    assert [part.items for part in parts] == [1, 1]


def test_a_request_that_cannot_be_cleaned_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    class Breaking:
        def rewrite(self, _: Signal, body: bytes) -> bytes:
            if MAIL.encode() in body:
                raise RuntimeError(f"broke on {MAIL}")
            return body

        def attributes(self, _: Signal) -> frozenset[str]:
            return frozenset()

        def process(self, _: object) -> None:
            pass

    pipeline = Pipeline("traces", Signal.TRACES, [("redaction", Breaking())], Stats())
    addition, parts = pipeline.process([request("a"), request(MAIL, "b"), request("c")])
    assert otlp.span_names(addition.payload) == ["a", "c"]
    assert (addition.received, addition.dropped) == (4, {REDACTION_FAILED: 2})
    assert [part.items for part in parts] == [1, 2, 1]
    assert MAIL not in caplog.text


def test_bytes_that_are_no_otlp_are_refused_as_ever() -> None:
    pipeline = Pipeline("traces", Signal.TRACES, [("redaction", processor(Stats()))], Stats())
    addition, parts = pipeline.process([b"\x0a\xff" + MAIL.encode(), request("a")])
    assert parts[0].error
    assert otlp.span_names(addition.payload) == ["a"]
    assert addition.dropped.get(REDACTION_FAILED, 0) == 0


def config(*processors: str) -> Any:
    listed = ", ".join(processors)
    return load(
        [
            "yaml:receivers: {otlp: }",
            "yaml:exporters: {debug: }",
            "yaml:processors: {redaction: , memory_limiter: {limit_mib: 100}, batch: }",
            "yaml:processors::resource: {attributes: [{key: a, action: delete}]}",
            f"yaml:service::pipelines::logs: {{receivers: [otlp], processors: [{listed}], exporters: [debug]}}",
        ]
    )


def test_it_must_be_the_first_that_runs() -> None:
    config("memory_limiter", "redaction", "resource", "batch")
    with pytest.raises(ConfigError) as caught:
        config("memory_limiter", "resource", "redaction")
    assert caught.value.mistakes == [
        "service.pipelines.logs.processors: redaction must stand before resource: it works on requests as they come"
    ]


def test_pseudonyms_are_joinable_by_the_hash_key() -> None:
    def name_of(**settings: Any) -> bytes:
        message = ExportTraceServiceRequest()
        message.resource_spans.add().resource.attributes.add(key="user.id").value.string_value = "joe"
        return processor(Stats(), **settings).rewrite(Signal.TRACES, message.SerializeToString())

    assert name_of(hash_key="one") == name_of(hash_key="one")
    assert name_of(hash_key="one") != name_of(hash_key="two")
    assert b"joe" not in name_of()


def pseudonym(directory: Path | None, **settings: Any) -> str:
    body = ExportTraceServiceRequest.FromString(request("job"))
    body.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="user.id").value.string_value = "joe-17"
    clean = processor(Stats(), directory=directory, **settings).rewrite(Signal.TRACES, body.SerializeToString())
    found = ExportTraceServiceRequest.FromString(clean)
    return found.resource_spans[0].scope_spans[0].spans[0].attributes[0].value.string_value


def test_pseudonyms_stay_over_a_restart(tmp_path: Path) -> None:
    first = pseudonym(tmp_path / "common")
    assert first == pseudonym(tmp_path / "common") != pseudonym(tmp_path / "other")
    assert (tmp_path / "common" / "pseudonym.key").stat().st_mode & 0o777 == 0o600
    assert pseudonym(None) != pseudonym(None)
    assert pseudonym(None, hash_key="k") == pseudonym(tmp_path / "common", hash_key="k")


def test_a_key_that_cannot_be_kept_is_told_of_and_pseudonyms_are_made_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pseudonym.key").write_bytes(b"short")
    assert "joe" not in pseudonym(tmp_path)
    assert "holds no key" in caplog.text
    (tmp_path / "file").write_text("")
    assert "joe" not in pseudonym(tmp_path / "file")
    assert "cannot be kept" in caplog.text
