"""What the gateway counts about itself, for port 8888: the Collector's names where it has one.

The balance (received = exported + filtered + dropped + parked + queued) is not counted here but read from the outbox,
which keeps it in the same transaction as the data: it is exact at any moment and survives a crash.
"""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from otel_pipeline import __version__
from otel_pipeline.wire.scan import COMPILED
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client import Metric

    from otel_pipeline.outbox_state import StreamState

ACK_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class _Metrics:
    """A registry and the ways to put counters into it."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _by_signal(self, name: str, text: str, labels: tuple[str, ...]) -> dict[Signal, Counter]:
        return {signal: self._counter(f"{name}_{signal.value.items}", text, labels) for signal in Signal}


class _OfProcessors(_Metrics):
    """What processors count."""

    def __init__(self) -> None:
        super().__init__()
        self.incoming: Final = self._counter(
            "otelcol_processor_incoming_items", "Items handed to a processor.", ("processor", "otel_signal")
        )
        self.outgoing: Final = self._counter(
            "otelcol_processor_outgoing_items", "Items a processor left in.", ("processor", "otel_signal")
        )
        self.processor_failures: Final = self._counter(
            "otel_pipeline_processor_failures",
            "Batches in which a processor raised; they went on without it.",
            ("processor",),
        )
        self.redacted: Final = self._counter(
            "otel_pipeline_redacted_values", "Pieces of text that were removed, by kind.", ("processor", "kind")
        )
        self.open_jobs: Final = Gauge(
            "otel_pipeline_open_jobs", "Jobs under way that were reported.", ("processor",), registry=self.registry
        )
        self.lost_jobs: Final = self._counter(
            "otel_pipeline_lost_jobs",
            "Jobs that fell silent, by event: marked; late_end: ended after all; overflow: too many to remember.",
            ("processor", "event"),
        )
        self.failures: Final = self._counter(
            "otel_pipeline_classified_failures",
            "Failures by how they were named: remembered, judged in full, coarse (too many new ones at once), noise.",
            ("processor", "how"),
        )
        self.gpu_spans: Final = self._counter(
            "otel_pipeline_gpu_spans",
            "Spans by what is known of their GPUs: ok, partial, missing, ambiguous, none; parked: waited for samples.",
            ("processor", "status"),
        )
        self.gpu_samples: Final = self._counter(
            "otel_pipeline_gpu_samples",
            "GPU samples that were kept, or left out by reason.",
            ("processor", "outcome"),
        )


class _OfReceivers(_OfProcessors):
    """What receivers count that ask instead of being sent to."""

    def __init__(self) -> None:
        super().__init__()
        self.dcgm_scrapes: Final = self._counter(
            "otel_pipeline_dcgm_scrapes",
            "Scrapes of DCGM exporters by outcome: ok, cached, unreachable, timeout, http_status, encoding, too_large, "
            "no_gpus, retry_later, rejected, failed.",
            ("receiver", "outcome"),
        )
        self.dcgm_left_out: Final = self._counter(
            "otel_pipeline_dcgm_left_out_values",
            "Values of DCGM exporters that were left out, by reason: sentinel, invalid, no_id, copy, limit, cached.",
            ("receiver", "reason"),
        )
        self.nvml_readings: Final = self._counter(
            "otel_pipeline_nvml_readings",
            "Readings of this machine's GPUs by outcome: ok, retry_later, rejected, dropped.",
            ("receiver", "outcome"),
        )


class _OfBooks(_OfReceivers):
    """What is counted of books and their stores."""

    def __init__(self) -> None:
        super().__init__()
        self.records_applied: Final = self._counter(
            "otel_pipeline_book_records", "Side records that a book has applied.", ("book",)
        )
        self.records_waiting: Final = Gauge(
            "otel_pipeline_book_waiting_records",
            "Side records that wait for a book in the outbox.",
            ("book",),
            registry=self.registry,
        )
        self.error_groups: Final = self._counter(
            "otel_pipeline_error_group_events",
            "What the store saw of groups of failures: new, regressed (came again after it was resolved), repeated "
            "(occurrences that were counted before), unreadable (records).",
            ("event",),
        )
        self.ledger: Final = self._counter(
            "otel_pipeline_ledger_events",
            "What the ledger did: stored, repeated, told_twice (by a span below, too), implausible (longer than two "
            "days), too_old (spans), unreadable (records), late, booked, corrected, failed (hours of GPUs), compacted "
            "(hours), unweighted (spans without a weight).",
            ("event",),
        )
        self.book_failures: Final = self._counter(
            "otel_pipeline_book_failures", "Attempts to apply side records that the store refused.", ("book",)
        )


class Stats(_OfBooks):
    """The gateway's own metrics; each is documented where it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: Final = self._by_signal(
            "otelcol_receiver_accepted",
            "Items that are durable in the outbox, acknowledged.",
            ("receiver", "transport"),
        )
        self.refused: Final = self._by_signal(
            "otelcol_receiver_refused", "Items that were refused at the door.", ("receiver", "transport")
        )
        self.requests: Final = Counter(
            "otel_pipeline_receiver_requests",
            "Requests by outcome: accepted, partial, retry_later, rejected.",
            ("receiver", "transport", "signal", "outcome"),
            registry=self.registry,
        )
        self.ack_seconds: Final = Histogram(
            "otel_pipeline_receiver_ack_seconds",
            "Time from a complete request to its acknowledgement.",
            ("signal",),
            buckets=ACK_BUCKETS_S,
            registry=self.registry,
        )
        self.sent: Final = self._by_signal("otelcol_exporter_sent", "Items that a backend took.", ("exporter",))
        self.send_failed: Final = self._by_signal(
            "otelcol_exporter_send_failed", "Items that a backend refused for good.", ("exporter",)
        )
        self.attempts: Final = self._counter(
            "otel_pipeline_exporter_requests",
            "Export requests by outcome: ok, retry, refused, too_large.",
            ("exporter", "outcome"),
        )
        self.in_flight: Final = Gauge(
            "otelcol_exporter_in_flight_requests", "Export requests under way.", ("exporter",), registry=self.registry
        )
        self.compiled: Final = Gauge(
            "otel_pipeline_kernel_compiled",
            "1 if the compiled kernel runs, 0 if the interpreted one does.",
            registry=self.registry,
        )
        self.compiled.set(COMPILED)
        Gauge("otel_pipeline_build", "Always 1; the version is a label.", ("version",), registry=self.registry).labels(
            __version__
        ).set(1)
        self.registry.register(ProcessMetrics(time.monotonic()))

    def watch(
        self, states: Callable[[], Sequence[StreamState]], used_bytes: Callable[[], int], capacity_bytes: int
    ) -> None:
        """Expose the outbox's balance; `states` reads it in one transaction."""
        self.registry.register(OutboxMetrics(states, used_bytes, capacity_bytes))


class ProcessMetrics:
    """CPU, memory and age of this process, by the Collector's names."""

    def __init__(self, started: float) -> None:
        self._started = started

    def collect(self) -> Iterable[Metric]:
        """Read them now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield CounterMetricFamily(
            "otelcol_process_cpu_seconds", "CPU time, user and system.", usage.ru_utime + usage.ru_stime
        )
        yield CounterMetricFamily(
            "otelcol_process_uptime_seconds", "Age of the process.", time.monotonic() - self._started
        )
        yield GaugeMetricFamily("otelcol_process_memory_rss_bytes", "Resident memory.", rss_bytes())


class OutboxMetrics:
    """The balance: for each pipeline and exporter, received = exported + filtered + dropped + parked + queued."""

    def __init__(
        self, states: Callable[[], Sequence[StreamState]], used_bytes: Callable[[], int], capacity_bytes: int
    ) -> None:
        self._states = states
        self._used_bytes = used_bytes
        self._capacity_bytes = capacity_bytes

    def collect(self) -> Iterable[Metric]:
        """Read them from one snapshot."""
        stream = ("pipeline", "signal")
        received = CounterMetricFamily("otel_pipeline_received_items", "Items taken in by a pipeline.", labels=stream)
        filtered = CounterMetricFamily(
            "otel_pipeline_filtered_items",
            "Items that a processor dropped as configured.",
            labels=(*stream, "processor"),
        )
        per_exporter = (*stream, "exporter")
        dropped = CounterMetricFamily(
            "otel_pipeline_dropped_items", "Items lost, by reason.", labels=(*per_exporter, "reason")
        )
        exported = CounterMetricFamily(
            "otel_pipeline_exported_items", "Items that a backend took.", labels=per_exporter
        )
        queued = GaugeMetricFamily("otel_pipeline_queued_items", "Items that wait in the outbox.", labels=per_exporter)
        size = GaugeMetricFamily("otelcol_exporter_queue_size", "Batches that wait in the outbox.", labels=per_exporter)
        age = GaugeMetricFamily(
            "otel_pipeline_queue_age_seconds", "Age of the oldest waiting batch.", labels=per_exporter
        )
        parked = GaugeMetricFamily("otel_pipeline_parked_items", "Items that a processor has set aside.", labels=stream)
        used = GaugeMetricFamily("otel_pipeline_outbox_bytes", "Bytes that wait in the outbox.", labels=stream)
        capacity = GaugeMetricFamily("otel_pipeline_outbox_capacity_bytes", "At this size the door closes.")
        capacity.add_metric((), self._capacity_bytes)
        held = GaugeMetricFamily("otel_pipeline_outbox_used_bytes", "Bytes of all that waits in the outbox.")
        held.add_metric((), self._used_bytes())
        for state in self._states():
            labels = (state.pipeline, state.signal)
            received.add_metric(labels, state.received)
            used.add_metric(labels, state.bytes)
            parked.add_metric(labels, state.parked)
            for processor, count in state.filtered.items():
                filtered.add_metric((*labels, processor), count)
            for cursor in state.cursors:
                own = (*labels, cursor.exporter)
                exported.add_metric(own, cursor.exported)
                queued.add_metric(own, cursor.queued_items)
                size.add_metric(own, cursor.queued_batches)
                age.add_metric(own, cursor.oldest_age_s)
                for reason, count in (*state.dropped.items(), *cursor.dropped.items()):
                    dropped.add_metric((*own, reason), count)
        yield from (received, filtered, dropped, parked, exported, queued, size, age, used, held, capacity)


def rss_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - read at each scrape
        return int(file.read().split()[1]) * PAGE_BYTES
