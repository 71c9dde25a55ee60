"""Log records that worker code emits in a test: an SDK provider of its own, in place of the global one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from otel_pipeline.worker import events, logs
from otel_pipeline.worker.process import providers


class Records:
    """What was emitted."""

    def __init__(self, exporter: InMemoryLogRecordExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[LogRecord]:
        return [each.log_record for each in self._exporter.get_finished_logs()]

    def one(self, name_or_body: str) -> LogRecord:
        [found] = [record for record in self.all() if name_or_body in (record.event_name, record.body)]
        return found


def attributes(record: LogRecord) -> Mapping[str, Any]:
    return record.attributes or {}


@contextmanager
def recorded_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    """The modules that emit are given a provider with our processor before one that exports at once."""
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # has no annotations
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    providers._prepare_logs(provider)
    monkeypatch.setattr(logs, "get_logger_provider", lambda: provider)
    monkeypatch.setattr(logs, "get_logger", provider.get_logger)
    monkeypatch.setattr(events, "get_logger", provider.get_logger)
    yield Records(exporter)
    provider.shutdown()
