"""Processor `error_class`: names what kind of failure a failed span, or a log record of an exception, reports.

The rules are in `failures/`. The usual batch has few failures or none, so the many columns that rules look at are read
of the failed rows alone, in a batch of their own (`Batch.excerpt`). Rows are brought together by what is known of them,
so that each distinct failure of a batch is looked at once, and those that are remembered not at all. In a storm of
failures that are all different, `judged_max` of them are looked at; the rest of that batch is named by exception type
and attributes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import numpy as np
from pydantic import Field

from otel_pipeline.contracts import Accepted, Context, Settings
from otel_pipeline.exposition.label_columns import group_rows, resource_column
from otel_pipeline.failures.classify import OUT_OF_MEMORY, Classifier, Verdict
from otel_pipeline.failures.evidence import KEYS, NUMBERS, TEXTS, URLS, evidence, origin, text_of
from otel_pipeline.failures.logged import LoggedExceptions
from otel_pipeline.failures.news import request_of
from otel_pipeline.failures.noise import KEYS as NOISE_KEYS
from otel_pipeline.failures.noise import noise as noise_of
from otel_pipeline.failures.occurrences import Group, encode
from otel_pipeline.failures.origins import IDS, Origins
from otel_pipeline.failures.pack import read_file
from otel_pipeline.limits import EXPOSITION_SERIES_MAX, FAILURES_JUDGED_MAX, NEWS_REQUEST_MAX
from otel_pipeline.wire import cells
from otel_pipeline.wire.batch import ABSENT, Constants, Strings
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline.contracts import Entrance
    from otel_pipeline.wire.batch import Batch, Ints, Mask

ERROR: Final = 2
SEVERITY_ERROR: Final = 17
KEYS_MAX: Final = 2**62
"""Above this a mixed-radix key could leave 64 bits."""
EXCEPTION: Final = ("exception.type", "exception.message", "exception.stacktrace")
WRITTEN: Final = tuple(f"otel_pipeline.error.{name}" for name in ("class", "rule", "fingerprint", "retryable", "fault"))
ERROR_TYPE: Final = "error.type"
BACKENDS: Final = (
    "otel_pipeline.backend.name",
    "gen_ai.provider.name",
    "db.system.name",
    "db.system",
    "messaging.system",
    "server.address",
    "net.peer.name",
)
MODEL: Final = "gen_ai.request.model"
LABELS: Final = ("class", "service", "backend", "model", "fault")
BOOK: Final = "error_groups"
HTTP_STATUS: Final = NUMBERS[:2]
NEWS_ROUND_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Failures:
    """The failed rows of a batch, by what is known of them."""

    rows: Ints
    group: Ints
    """For each of `rows` the number of its failure."""
    example: Ints
    """For each failure one place in `rows`."""
    columns: dict[str, Strings]


class ErrorClassProcessor:
    """Sets `otel_pipeline.error.class`, `.rule`, `.fingerprint`, `.retryable` and `.fault`, and counts failures."""

    signals: ClassVar = frozenset({Signal.TRACES, Signal.LOGS})
    """The pipelines it can stand in."""

    class Config(Settings):
        """Settings of `error_class`."""

        rules_file: Path | None = None
        """Rules of your own, asked before those of this package; see docs/errors.md. Try it with
        `otel-pipeline errors test --rules FILE`."""
        judged_max: Annotated[int, Field(ge=1)] = FAILURES_JUDGED_MAX
        """New failures of one batch that are looked at in full, about 0.2 ms each; the class of further ones follows
        from exception type and attributes alone, and they get no fingerprint."""
        health_checks: bool = False
        """Name failed health checks, too."""
        groups: bool = True
        """Keep the groups of failures in the store, for `otel-pipeline errors list`, and tell of new ones."""
        series_max: Annotated[int, Field(ge=1)] = EXPOSITION_SERIES_MAX
        """Series of otel_pipeline_errors_total; all further ones share the series whose labels read `__overflow__`."""

    @staticmethod
    def books(config: Config) -> tuple[str, ...]:
        """Where the failures are kept."""
        return (BOOK,) if config.groups else ()

    def __init__(self, config: Config, context: Context) -> None:
        self._classifier = Classifier(read_file(config.rules_file) if config.rules_file else None)
        self._judged_max = config.judged_max
        self._health_checks = config.health_checks
        self._logged = context.shared.get(f"{context.component_id} logged", LoggedExceptions)
        self._origins = context.shared.get(f"{context.component_id} origins", Origins)
        self._book: Any = context.books.get(BOOK)
        self._tells = context.signal is Signal.LOGS
        self._readers: dict[Signal, BatchReader] = {}
        counts = context.stats.failures
        self._counts = {
            how: counts.labels(context.component_id, how) for how in ("remembered", "judged", "coarse", "noise")
        }
        self._errors = context.exposition.counter(
            "otel_pipeline_errors_total", "Failures by class.", LABELS, config.series_max
        )
        self._out_of_memory = context.exposition.counter(
            "otel_pipeline_gpu_out_of_memory_total",
            "Failures for want of a GPU's memory.",
            LABELS[1:4],
            config.series_max,
        )

    def attributes(self, signal: Signal) -> frozenset[str]:
        """What tells that a log record has failed, and what it sets."""
        if signal not in self.signals:
            return frozenset()
        return frozenset({*WRITTEN, ERROR_TYPE, *(EXCEPTION[:2] if signal is Signal.LOGS else ())})

    def process(self, batch: Batch) -> None:
        """Name the failures of the kept rows; all others stay as they are."""
        failed = _failed(batch)
        if failed is None:
            return
        part = self._reader(batch.signal).read([batch.excerpt(failed)])[0]
        rows = self._without_noise(part)
        if not len(rows):
            return
        failures = _distinct(part, rows, self._exceptions(part, rows))
        verdicts = self._verdicts(failures)
        _write(batch, np.flatnonzero(failed)[rows], verdicts, failures)
        self._count(part, failures, verdicts)
        if self._book is not None:
            record = self._record(part, failures, verdicts)
            if record:
                batch.record(BOOK, record)

    async def originate(self, entrance: Entrance) -> None:
        """Where it stands in a logs pipeline: hand in what the store has told of new groups."""
        while self._tells and self._book is not None:
            await asyncio.sleep(NEWS_ROUND_S)
            while self._book.news:
                news = [self._book.news.popleft() for _ in range(min(len(self._book.news), NEWS_REQUEST_MAX))]
                if not isinstance(await entrance.accept(request_of(news)), Accepted):
                    self._book.news.extendleft(reversed(news))
                    break

    def _reader(self, signal: Signal) -> BatchReader:
        """Reads what rules look at, and what the counter is labelled by."""
        if signal not in self._readers:
            keys = {*KEYS, *BACKENDS, *NOISE_KEYS, *(EXCEPTION if signal is Signal.LOGS else ())}
            self._readers[signal] = BatchReader(signal, sorted(keys))
        return self._readers[signal]

    def _record(self, batch: Batch, failures: _Failures, verdicts: list[Verdict]) -> bytes:
        """The failures that stand for themselves, for the store; empty if there are none."""
        names = [verdict.name for verdict in verdicts]
        classes = [names[number] for number in failures.group.tolist()]
        telling = np.zeros(len(failures.rows), np.bool_)
        for key in (*EXCEPTION[:2], "status"):
            telling |= failures.columns[key].where(bool)
        standing = self._origins.standing(batch, failures.rows, classes, telling)
        return _record(batch, failures, verdicts, standing) if standing.any() else b""

    def _exceptions(self, batch: Batch, rows: Ints) -> Sequence[Strings]:
        """Type, message and stack trace of the failed rows: their own, or those that were logged for a silent span."""
        if batch.signal is Signal.LOGS:
            columns = [batch.strings(key) for key in EXCEPTION]
            self._logged.remember(batch, rows, columns)
            return columns
        return self._logged.completed(batch, rows, batch.exception())

    def _without_noise(self, batch: Batch) -> Ints:
        """The failed rows to name."""
        if self._health_checks:
            return np.arange(len(batch))
        noise = noise_of(batch)
        self._counts["noise"].inc(int(np.count_nonzero(noise)))
        return np.flatnonzero(~noise)

    def _verdicts(self, failures: _Failures) -> list[Verdict]:
        """One for each distinct failure."""
        verdicts = []
        left = self._judged_max
        how = dict.fromkeys(("remembered", "judged", "coarse"), 0)
        sizes = np.bincount(failures.group, minlength=len(failures.example)).tolist()
        for place, size in zip(failures.example.tolist(), sizes, strict=True):
            told = {key: column.at(place) or "" for key, column in failures.columns.items()}
            known = evidence(
                told.pop("exception.type", ""),
                told.pop("exception.message", ""),
                told.pop("exception.stacktrace", ""),
                told.pop("status", ""),
                told.pop("name", ""),
                {key: value for key, value in told.items() if value},
            )
            verdict = self._classifier.remembered(known)
            if verdict is not None:
                how["remembered"] += size
            elif left > 0:
                left -= 1
                how["judged"] += size
                verdict = self._classifier.classify(known)
            else:
                how["coarse"] += size
                verdict = self._classifier.coarse(known)
            verdicts.append(verdict)
        for name, count in how.items():
            self._counts[name].inc(count)
        return verdicts

    def _count(self, batch: Batch, failures: _Failures, verdicts: list[Verdict]) -> None:
        """Failed spans, and log records that belong to none: those of a span are counted with it."""
        codes = np.full(len(batch), ABSENT, np.int32)
        codes[failures.rows] = failures.group
        counted = codes >= 0
        if batch.signal is Signal.LOGS:
            counted &= batch.rows[:, cells.SPAN_ID] == 0
        if not counted.any():
            return
        classes, faults = [verdict.name for verdict in verdicts], [verdict.fault for verdict in verdicts]
        columns = [
            Strings(codes, classes),
            resource_column(batch, "service.name"),
            _first_of(batch, BACKENDS),
            batch.strings(MODEL),
            Strings(codes, [*faults]),
        ]
        self._errors.add(group_rows(columns, counted))
        short = counted & columns[0].where(OUT_OF_MEMORY.__eq__)
        if short.any():
            self._out_of_memory.add(group_rows(columns[1:4], short))


def _failed(batch: Batch) -> Mask | None:
    """The failed rows; None for the usual batch, which has none."""
    if batch.signal is Signal.TRACES:
        failed = batch.status_code == ERROR
    elif batch.signal is Signal.LOGS:
        serious = (batch.kind >= SEVERITY_ERROR) | (batch.kind == 0)
        failed = serious & (batch.present(EXCEPTION[0]) | batch.present(EXCEPTION[1]))
    else:
        return None
    failed = failed & batch.keep
    return failed if np.count_nonzero(failed) else None


def _distinct(batch: Batch, rows: Ints, exceptions: Sequence[Strings]) -> _Failures:
    """Brings rows together of which the same is known."""
    columns = {"name": batch.name(), "status": batch.status_message(), **dict(zip(EXCEPTION, exceptions, strict=True))}
    for key in TEXTS:
        if batch.present(key)[rows].any():
            columns[key] = _origins(batch.strings(key), rows) if key in URLS else batch.strings(key)
    for key in NUMBERS:
        if batch.present(key)[rows].any():
            columns[key] = _digits(batch, key, rows)
    columns = {key: Strings(column.codes[rows], column.values) for key, column in columns.items()}
    keys, size = np.zeros(len(rows), np.int64), 1
    for column in columns.values():
        radix = len(column.values) + 1
        if size * radix > KEYS_MAX:
            _, keys = np.unique(keys, return_inverse=True)
            size = len(rows)
        keys = keys * radix + column.codes + 1
        size *= radix
    _, example, group = np.unique(keys, return_index=True, return_inverse=True)
    return _Failures(rows, group, example, columns)


def _origins(urls: Strings, rows: Ints) -> Strings:
    """Scheme and host of each URL of `rows`: failures of one service must not look different."""
    places: dict[str, int] = {}
    table = np.full(len(urls.values) + 1, ABSENT, np.int32)
    for code in np.unique(urls.codes[rows]).tolist():
        if code != ABSENT:
            table[code] = places.setdefault(origin(urls.values[code]), len(places))
    return Strings(table[urls.codes], list(places))


def _digits(batch: Batch, key: str, rows: Ints) -> Strings:
    """A number as text, and text as it is."""
    text = batch.strings(key)
    numbers = batch.numbers(key)
    known = np.zeros(len(batch), np.bool_)
    known[rows] = True
    known &= ~np.isnan(numbers) & (text.codes == ABSENT)
    distinct, places = np.unique(numbers[known], return_inverse=True)
    codes = text.codes.copy()
    codes[known] = places + len(text.values)
    return Strings(codes, [*text.values, *map(text_of, distinct.tolist())])


def _write(batch: Batch, rows: Ints, verdicts: list[Verdict], failures: _Failures) -> None:
    """Set the attributes of `rows`, which are the failures' rows in the whole batch."""
    codes = np.full(len(batch), ABSENT, np.int32)
    codes[rows] = failures.group
    marks: tuple[Sequence[str | bool], ...] = (
        [verdict.name for verdict in verdicts],
        [verdict.rule for verdict in verdicts],
        [verdict.fingerprint for verdict in verdicts],
        [verdict.retryable for verdict in verdicts],
        [verdict.fault for verdict in verdicts],
    )
    for key, values in zip(WRITTEN, marks, strict=True):
        given = np.array([*(value != "" for value in values), False], np.bool_)[codes]
        batch.set(key, Constants(np.where(given, codes, np.int32(ABSENT)), list(values)))
    kinds = failures.columns[EXCEPTION[0]]
    named = np.array([*(bool(value) for value in kinds.values), False], np.bool_)[kinds.codes]
    if named.any():
        types = np.full(len(batch), ABSENT, np.int32)
        types[rows[named]] = kinds.codes[named]
        batch.set(ERROR_TYPE, Constants(types, kinds.values), types >= 0, "insert")


def _record(batch: Batch, failures: _Failures, verdicts: list[Verdict], standing: Mask) -> bytes:
    """The occurrences for the store. What was named by type alone is one group for each class."""
    places: dict[str, int] = {}
    groups: list[Group] = []
    numbers = np.full(len(verdicts), ABSENT, np.int64)
    rows, group = failures.rows[standing], failures.group[standing]
    for index in np.unique(group).tolist():
        verdict = verdicts[index]
        mark = verdict.fingerprint or f"coarse-{verdict.name.lower()}"
        numbers[index] = places.setdefault(mark, len(groups))
        if numbers[index] == len(groups):
            groups.append(_group(mark, verdict, failures, int(failures.example[index])))
    services = resource_column(batch, "service.name")
    table = np.empty((len(rows), 6), np.int64)
    table[:, 0] = numbers[group]
    table[:, 1] = services.codes[rows]
    end_ns = batch.end_time if batch.signal is Signal.TRACES else np.where(batch.time, batch.time, batch.end_time)
    table[:, 2] = end_ns[rows].view(np.int64)
    table[:, 3:] = batch.rows[rows][:, IDS]
    return encode(groups, services.values, table)


def _group(mark: str, verdict: Verdict, failures: _Failures, place: int) -> Group:
    told = {key: column.at(place) or "" for key, column in failures.columns.items()}
    kind, message = (told[key] for key in EXCEPTION[:2])
    statuses = (f"HTTP {told[key]}" for key in HTTP_STATUS if told.get(key))
    message = message or told["status"] or next(statuses, "")
    return Group(mark, verdict.name, verdict.rule, verdict.retryable, verdict.fault, kind, message, told["name"])


def _first_of(batch: Batch, keys: Sequence[str]) -> Strings:
    """The first of several attributes that a row has."""
    codes = np.full(len(batch), ABSENT, np.int32)
    values: list[str] = []
    for key in keys:
        if batch.present(key).any():
            column = batch.strings(key)
            codes = np.where((codes < 0) & (column.codes >= 0), column.codes + np.int32(len(values)), codes)
            values += column.values
    return Strings(codes.astype(np.int32), values)
