"""How many error groups there are and how long they stay unresolved, read from the store when somebody scrapes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from prometheus_client.core import GaugeMetricFamily

from otel_pipeline.errors import StoreError
from otel_pipeline.store.error_group_tables import ERROR_GROUP, OPEN, REGRESSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

    from otel_pipeline.store.database import Database

READ_S: Final = 5.0
"""Scrapes within this time get the same answer."""


class GroupMetrics:
    """A collector for prometheus_client. While the store cannot be read there are no samples."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._read_s = float("-inf")
        self._rows: list[tuple[str, str, int, int]] = []

    def describe(self) -> Iterable[Metric]:
        """What the registry asks for at first, before there is anything to read."""
        return _families()

    def collect(self) -> Iterable[Metric]:
        """Read them, at most every READ_S."""
        groups, age = _families()
        now_s = self._clock()
        if now_s - self._read_s >= READ_S:
            self._read_s, self._rows = now_s, self._read()
        oldest_ms: dict[str, int] = {}
        for name, state, count, changed_ms in self._rows:
            groups.add_metric((name, state), count)
            if state in {OPEN, REGRESSED}:
                oldest_ms[name] = min(changed_ms, oldest_ms.get(name, changed_ms))
        for name, changed_ms in oldest_ms.items():
            age.add_metric((name,), max(0.0, now_s - changed_ms / 1000))
        yield from (groups, age)

    def _read(self) -> list[tuple[str, str, int, int]]:
        columns = ERROR_GROUP.c
        wanted = sa.select(
            columns.class_, columns.state, sa.func.count(), sa.func.min(columns.state_changed_ms)
        ).group_by(columns.class_, columns.state)
        try:
            with self._database.read() as connection:
                return [
                    (name, state, count, changed_ms) for name, state, count, changed_ms in connection.execute(wanted)
                ]
        except StoreError:
            return []


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("otel_pipeline_error_groups", "Groups of failures.", labels=("class", "state")),
        GaugeMetricFamily(
            "otel_pipeline_error_group_unresolved_age_seconds",
            "Time since the oldest group that is open or regressed became so.",
            labels=("class",),
        ),
    )
