"""What the ledger tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from otel_pipeline.errors import StoreError
from otel_pipeline.exposition.page import page
from otel_pipeline.stats import Stats
from otel_pipeline.store.books import open_book
from otel_pipeline.store.config import StoreConfig
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger_metrics import READ_S, LedgerMetrics
from otel_pipeline.store.ledger_report_config import CostReportsConfig
from tests.support.ledger_laws import Watched
from tests.support.ledger_records import GPU, T0, One, record

Key = tuple[str, frozenset[str]]


class Scraped:
    """A ledger and a registry that a Prometheus scrapes."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.watched = Watched(open_database(path / "store.db", owner=True))
        self.config = CostReportsConfig.model_validate(settings)
        self.now_s = float(T0 + 7200)
        self.restart()

    def restart(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = LedgerMetrics(self.watched.database, self.config, lambda: self.now_s)
        self.metrics.read()
        self.registry.register(self.metrics)

    def read(self) -> None:
        self.now_s += READ_S
        self.metrics.read()

    def scrape(self) -> dict[Key, float]:
        self.read()
        return samples(self.registry)


def samples(registry: CollectorRegistry) -> dict[Key, float]:
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in parse(generate_latest(registry).decode())
        for sample in family.samples
    }


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Scraped]:
    one = Scraped(tmp_path, reference_price="1")
    yield one
    one.watched.database.close()


def key(name: str, *labels: str) -> Key:
    return name, frozenset(labels)


TOTAL = key("comfyui_job_cost_dollars_total", "pod-1")
JOB = One(1, 0, 30, kind="job", job="A", outcome="completed", backend="pod-1")


def test_the_counter_begins_at_zero_and_rises_by_what_is_booked(scraped: Scraped) -> None:
    assert TOTAL not in scraped.scrape()
    scraped.watched.apply(record(JOB, seen={GPU: (0, 60)}))
    assert scraped.scrape()[TOTAL] == 0
    assert scraped.scrape()[TOTAL] == 0.03


def test_the_counter_begins_anew_when_the_gateway_starts(scraped: Scraped) -> None:
    scraped.watched.apply(record(JOB, seen={GPU: (0, 60)}))
    scraped.restart()
    assert scraped.scrape()[TOTAL] == 0
    scraped.watched.apply(record(replace(JOB, span=2, start=60, end=70, trace=2, job="B")))
    assert scraped.scrape()[TOTAL] == 0.01


def test_the_counter_does_not_fall_when_a_correction_lowers_the_sum(scraped: Scraped) -> None:
    scraped.watched.apply(record(JOB, seen={GPU: (0, 60)}))
    scraped.scrape()
    before = scraped.scrape()[TOTAL]
    scraped.watched.apply(record(One(2, 0, 30, trace=2)))
    assert scraped.scrape()[TOTAL] == before == 0.03


def test_the_gauge_is_the_last_job_over_all_attempts(scraped: Scraped) -> None:
    again = replace(JOB, span=2, start=100, end=110, trace=2, attempt=2)
    scraped.watched.apply(
        record(JOB, again, replace(JOB, span=3, start=60, end=65, trace=3, job="B"), seen={GPU: (0, 60)})
    )
    assert scraped.scrape()[key("comfyui_job_cost_dollars", "pod-1")] == 0.04


def test_the_day_stands_beside_its_budget(scraped: Scraped) -> None:
    scraped.watched.apply(record(JOB, seen={GPU: (0, 59)}))
    scraped.watched.settle()
    found = scraped.scrape()
    assert found[key("otel_pipeline_day_cost", "USD")] == 3.6
    assert found[key("otel_pipeline_day_budget", "USD")] == 10
    assert found[key("otel_pipeline_day_savings", "USD")] == pytest.approx(1 - 3.6)
    assert found[key("otel_pipeline_waste_ratio", "USD")] == 0
    assert found[key("otel_pipeline_refund_ratio")] == 0


def test_gauge_and_counter_of_one_name_stand_beside_each_other_in_openmetrics(scraped: Scraped) -> None:
    """Both are the same family there, and a strict reader refuses the page."""
    scraped.watched.apply(record(JOB, seen={GPU: (0, 60)}))
    scraped.scrape()
    accept = "application/openmetrics-text; version=1.0.0"
    content_type, body = page(list(scraped.registry.collect()), accept)
    assert content_type.startswith(accept)
    names = {sample.name for family in parse_open(body.decode()) for sample in family.samples}
    assert names > {"comfyui_job_cost_dollars", "comfyui_job_cost_dollars_total"}


def test_idle_is_a_counter(scraped: Scraped) -> None:
    scraped.watched.apply(record(JOB, seen={GPU: (0, 59)}))
    scraped.watched.settle()
    scraped.scrape()
    assert scraped.scrape()[key("otel_pipeline_idle_cost_total", "USD", "tail")] > 0


def test_no_series_names_a_job_or_a_user(scraped: Scraped) -> None:
    scraped.watched.apply(record(replace(JOB, job="job-7", user="user-7"), seen={GPU: (0, 60)}))
    scraped.scrape()
    text = generate_latest(scraped.registry).decode()
    assert "job-7" not in text
    assert "user-7" not in text


def test_backends_beyond_the_bound_are_one_series(scraped: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.store.ledger_metrics.COST_BACKENDS_MAX", 2)
    jobs = [replace(JOB, span=n, trace=n, job=f"J{n}", backend=f"pod-{n}") for n in range(1, 6)]
    scraped.watched.apply(record(*jobs, seen={GPU: (0, 60)}))
    names = {labels for name, labels in scraped.scrape() if name == TOTAL[0]}
    assert len(names) == 3
    assert frozenset({"__overflow__"}) in names


def test_a_scrape_never_waits_for_the_store(scraped: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    scraped.watched.apply(record(JOB, seen={GPU: (0, 60)}))
    before = scraped.scrape()

    def unreachable() -> None:
        raise AssertionError("the store was asked")

    monkeypatch.setattr(scraped.watched.database, "read", unreachable)
    scraped.now_s += 10 * READ_S
    assert samples(scraped.registry) == before


def test_what_was_read_stands_while_the_store_is_away(scraped: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    scraped.watched.apply(record(JOB, seen={GPU: (0, 60)}))
    before = scraped.scrape()

    def away() -> None:
        raise StoreError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(scraped.watched.database, "read", away)
        assert scraped.scrape() == before
    assert scraped.scrape()[TOTAL] == 0.03


def test_a_new_series_is_zero_until_it_was_scraped(scraped: Scraped) -> None:
    scraped.watched.apply(record(JOB, seen={GPU: (0, 60)}))
    for _ in range(3):
        scraped.read()
    assert scraped.scrape()[TOTAL] == 0
    assert scraped.scrape()[TOTAL] == 0.03


def test_the_thread_of_the_book_reads_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.store.ledger_metrics.READ_S", 0.0)
    stats = Stats()
    book = open_book("ledger", StoreConfig(), tmp_path, stats)
    booked = key("otel_pipeline_ledger_booked_timestamp_seconds")
    book.apply("epoch", 0, [record(JOB, seen={GPU: (0, 60)})])
    assert booked not in samples(stats.registry)
    book.tend()  # type: ignore[attr-defined]  # a book that is tended
    assert samples(stats.registry)[booked] > 0
    book.close()
