"""`otel-pipeline ledger verify|reprice`, over a store that a gateway has filled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from otel_pipeline.commands import command_line
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger_tables import ALLOCATION
from tests.support.ledger_laws import Watched
from tests.support.ledger_records import GPU, NAME, One, record

PRICES = f"""
defaults: false
prices:
  - id: dearer
    match: {{gpu: {NAME}}}
    basis: gpu_second
    price: "0.003"
"""
CONFIG = """yaml:{{receivers: {{otlp: {{protocols: {{grpc: {{}}}}}}}}, exporters: {{debug: {{}}}},
processors: {{cost: {{prices: [{prices}]}}}},
service: {{pipelines: {{traces: {{receivers: [otlp], processors: [cost], exporters: [debug]}}}}}}}}
"""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(open_database(tmp_path / "store.db", owner=True))
    watched.apply(record(One(1, 0, 30, job="J", kind="job"), seen={GPU: (0, 19)}))
    watched.settle()
    yield watched
    watched.ledger.close()


def invoke(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command_line, ["ledger", *arguments, "--data-dir", str(directory)])


def test_a_ledger_that_adds_up_is_said_to_do_so(watched: Watched, tmp_path: Path) -> None:
    result = invoke(tmp_path, "verify")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "20 periods, 1 spans, 2 bookings, paid 1.200000000 USD; 0 hours wait to be booked; 0 deviations\n"
    )
    assert watched.counts["stored"] == 1


def test_each_deviation_is_named_by_gpu_time_and_trace(watched: Watched, tmp_path: Path) -> None:
    with watched.database.write() as connection:
        connection.execute(sa.update(ALLOCATION).values(nano=ALLOCATION.c.nano + 5, span=-1))
    result = invoke(tmp_path, "verify", "--format", "json")
    assert result.exit_code == 1
    found = {one["kind"]: one for one in json.loads(result.stdout)["deviations"]}
    assert found["law"] == {
        "kind": "law",
        "gpu": GPU,
        "start": "2027-01-15T00:00:00+00:00",
        "currency": "USD",
        "off": 5,
    }
    assert found["unknown_span"]["trace"] == "0000000000000007ffffffffffffffff"
    assert found["unknown_span"]["span"] == "f" * 16
    assert "law: gpu=GPU-0 start=2027-01-15T00:00:00+00:00 currency=USD: off by 5" in invoke(tmp_path, "verify").stdout
    assert invoke(tmp_path, "verify", "--until", "2027-01-01", "--format", "json").stdout.count('"law"') == 0


def test_a_new_price_is_booked_from_a_date_on(watched: Watched, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    config = CONFIG.format(prices=prices)
    result = invoke(tmp_path, "verify", "--recompute", "--config", config)
    assert result.exit_code == 0, result.output
    place = "gpu=GPU-0 hour=2027-01-15T00:00:00+00:00 currency=USD"
    assert f"other prices now: {place}: `ledger reprice` would book 2400000000\n" in result.stdout
    result = invoke(tmp_path, "reprice", "--since", "2027-01-15", "--config", config)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("1 hours of GPUs and 0 direct charges changed, by 2.400000000 USD;")
    result = invoke(tmp_path, "verify", "--recompute", "--config", config)
    assert result.exit_code == 0, result.output
    assert "other prices now" not in result.stdout
    assert watched.books()["costs"] == {("J", 1, "USD"): 90_000_000}


def test_a_moment_that_is_none_is_refused(tmp_path: Path) -> None:
    result = invoke(tmp_path, "reprice", "--since", "yesterday")
    assert result.exit_code == 2
    assert "must be a date such as 2026-11-09, or a duration ago such as 24h" in result.output
