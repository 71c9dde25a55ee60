"""docs/metrics.md names each metric of the gateway with its type and labels, and no other."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_pipeline.contracts import Context
from otel_pipeline.exporters.prometheus import PrometheusExporter
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.failures.occurrences import Group, encode
from otel_pipeline.outbox_state import CursorState, StreamState
from otel_pipeline.processors.cost import CostProcessor
from otel_pipeline.processors.error_class import ErrorClassProcessor
from otel_pipeline.processors.span_metrics import SpanMetricsProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.store.books import open_book
from otel_pipeline.store.config import StoreConfig
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger_metrics import LedgerMetrics
from otel_pipeline.store.ledger_report_config import CostReportsConfig
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Value
from tests.support import otlp
from tests.support.ledger_records import T0
from tests.support.ledger_view_laws import filled

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
ROW = re.compile(r"\| `([^`]+)` \| (\w+) \| ([^|]*)\| ([^|]+) \|")
ITEMS = "<items>"
OTHERS = frozenset({"host_name"})
"""What `request` puts into `target_info` beside the labels that are always there."""


class Described(NamedTuple):
    """What a metric is."""

    name: str
    kind: str
    labels: frozenset[str]


def documented(port: int) -> set[Described]:
    """The rows of the tables below a port's headline."""
    section = PAGE.read_text("utf-8").split(f"\n## Port {port}:")[1].split("\n## ")[0]
    found = set()
    for name, kind, labels, _ in ROW.findall(section):
        names = [name.replace(ITEMS, signal.value.items) for signal in Signal] if ITEMS in name else [name]
        found |= {Described(each, kind, frozenset(re.findall(r"`(\w+)`", labels))) for each in names}
    return found


def scraped(metrics: Any) -> set[Described]:
    """Families of a snapshot with the labels of their samples."""
    return {
        Described(
            f"{metric.name}_total" if metric.type == "counter" else metric.name,
            metric.type,
            frozenset(label for sample in metric.samples for label in sample.labels) - {"le"},
        )
        for metric in metrics
        if not metric.name.endswith("_created")
    }


# -- 8888 --------------------------------------------------------------------------------------------------------------


def stream() -> StreamState:
    """Totals with something of everything."""
    cursor = CursorState("otlp", exported=1, dropped={"too_large": 1})
    return StreamState("traces", "traces", received=3, filtered={"filter": 1}, cursors=[cursor])


def with_all_labels(stats: Stats) -> None:
    """Make a series of each metric that has labels."""
    for value in vars(stats).values():
        for metric in value.values() if isinstance(value, dict) else [value]:
            names = getattr(metric, "_labelnames", ())  # nothing public tells them
            if names:
                metric.labels(*names)


def test_the_metrics_of_the_gateway_itself_are_those_of_the_page(tmp_path: Path) -> None:
    stats = Stats()
    stats.watch(lambda: [stream()], lambda: 1, 1)
    book = open_book("error_groups", StoreConfig(), tmp_path, stats)
    group = Group("f" * 16, "TIMEOUT_ERROR", "timeout", True, "platform", "TimeoutError", "", "job")  # noqa: FBT003
    book.apply("epoch", 0, [encode([group], ["worker"], np.array([[0, 0, time.time_ns(), 2, 3, 4]], np.int64))])
    with_all_labels(stats)
    ledger = filled(open_database(tmp_path / "ledger.db", owner=True))
    priced = CostReportsConfig(reference_price="0.08")
    costs = LedgerMetrics(ledger.database, priced, lambda: T0 + 80_000.0)
    costs.read()
    stats.registry.register(costs)
    assert documented(8888) == scraped(stats.registry.collect())
    book.close()
    book.close()
    ledger.database.close()


# -- 8889 --------------------------------------------------------------------------------------------------------------


def request() -> bytes:
    """A gauge of a process that says who it is, and a point that nobody can show."""
    message = ExportMetricsServiceRequest.FromString(otlp.metrics())
    group = message.resource_metrics[0]
    for key in ("service.instance.id", "host.name"):
        group.resource.attributes.add(key=key).value.string_value = "x"
    group.scope_metrics[0].metrics.add(name="timeless").gauge.data_points.add(as_int=1)
    return message.SerializeToString()


def failed_span() -> bytes:
    """One span with the status error."""
    message = ExportTraceServiceRequest.FromString(otlp.traces())
    span = message.resource_spans[0].scope_spans[0].spans[0]
    span.status.code = 2  # type: ignore[assignment]  # an enum's number
    span.status.message = "torch.OutOfMemoryError: CUDA out of memory"
    return message.SerializeToString()


def calls() -> bytes:
    """A span of a call with a price, and one without."""
    usage: dict[str, Value] = {"gen_ai.provider.name": "openai", "gen_ai.usage.cost": 0.1}
    message = ExportTraceServiceRequest.FromString(otlp.traces(attributes=usage))
    unknown = ExportTraceServiceRequest.FromString(otlp.traces(attributes={"gen_ai.provider.name": "nobody"}, first=2))
    message.MergeFrom(unknown)
    return message.SerializeToString()


def test_the_metrics_of_the_platform_are_those_of_the_page() -> None:
    exposition = Exposition()
    loop: Any = None
    context = Context("x", Stats(), exposition, loop, lambda: 1000.0)
    exporter = PrometheusExporter(PrometheusExporter.Config(), context)
    exporter.deliver(Signal.METRICS, request())
    SpanMetricsProcessor(SpanMetricsProcessor.Config(), context).process(
        BatchReader(Signal.TRACES).read([failed_span()])[0]
    )
    named = ErrorClassProcessor(ErrorClassProcessor.Config(), context)
    named.process(BatchReader(Signal.TRACES, named.attributes(Signal.TRACES)).read([failed_span()])[0])
    priced = CostProcessor(CostProcessor.Config(), context)
    priced.process(BatchReader(Signal.TRACES, priced.attributes(Signal.TRACES)).read([calls()])[0])
    shown = scraped(parse_text(exporter.render("")[1].decode()))
    assert documented(8889) == {one._replace(labels=one.labels - OTHERS) for one in shown if one.name != "queue_depth"}
