"""Processor `lost_jobs`: ends the jobs of workers that were killed, as lost.

A worker reports each job that takes longer than a moment by small spans, `job started` and then `job running` (see
worker/process/records.py). They are remembered here and dropped. The job's own span makes the job forgotten. When
neither comes for `lost_after`, the worker was killed: the span that it could not send is written here, with the job's
own ids, start and fields, and handed in like a received one.

Silence has other causes. While the door was closed, while this gateway was down or stood still, no report could be
heard from anybody, so every job is given the whole time anew. The reports are kept in a file, for jobs whose workers
die while the gateway restarts.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import lmdb
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from pydantic import Field

from otel_pipeline.contracts import Accepted, Context, Settings
from otel_pipeline.limits import LOST_JOBS_REQUEST_MAX, OPEN_JOB_BYTES_MAX, OPEN_JOBS_MAX
from otel_pipeline.quiet import Quiet
from otel_pipeline.settings import Duration
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import any_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from otel_pipeline.contracts import Entrance
    from otel_pipeline.wire.batch import Batch
    from otel_pipeline.wire.values import Scalar, Value

log = logging.getLogger(__name__)

STATE: Final = "otel_pipeline.job.state"
SPAN_ID: Final = "otel_pipeline.job.span_id"
PARENT_SPAN_ID: Final = "otel_pipeline.job.parent_span_id"
START_TIME: Final = "otel_pipeline.job.start_time_unix_nano"
OUTCOME: Final = "otel_pipeline.job.outcome"
OUTCOME_SOURCE: Final = "otel_pipeline.job.outcome_source"
DESTINATION: Final = "messaging.destination.name"
ATTEMPT: Final = "otel_pipeline.job.attempt"
TEXTS: Final = (
    "messaging.system",
    DESTINATION,
    "messaging.message.id",
    "messaging.consumer.group.name",
    "otel_pipeline.job.id",
    "otel_pipeline.correlation_id",
    "otel_pipeline.job.type",
    "otel_pipeline.job.tier",
    "enduser.pseudo.id",
    "otel_pipeline.workflow.name",
    "gen_ai.request.model",
    "otel_pipeline.backend.name",
)
"""What a report tells of its job and the job's span gets back."""
LOST: Final = "lost"
ROUND_S: Final = 1.0
"""How often silence is looked for, and changes are written to the file."""
GAP_S: Final = 5.0
"""A round that comes so late was held up together with the reports."""
CONSUMER: Final = 5
ERROR: Final = 2


@dataclass(slots=True)
class OpenJob:
    """What is known of a job under way."""

    trace_id: str
    span_id: str
    parent_span_id: str
    start_ns: int
    seen_ns: int
    """Time of the last report, by the worker's clock."""
    heard_s: float
    """The same by ours."""
    resource: bytes
    fields: dict[str, Scalar] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.trace_id + self.span_id


class LostJobsProcessor:
    """Takes the reports of jobs under way out of the traces, and marks the jobs lost whose reports stop."""

    class Config(Settings):
        """Settings of `lost_jobs`."""

        lost_after: Annotated[Duration, Field(gt=0)] = 90.0
        """Silence after which a job counts as lost. Workers report every OTEL_PIPELINE_HEARTBEAT_S, 30 s by default."""
        keep_records: bool = False
        """Let the reports pass, as spans named `job started` and `job running`."""
        jobs_max: Annotated[int, Field(ge=1)] = OPEN_JOBS_MAX
        """Jobs under way that are remembered; further ones are counted as overflow and cannot be marked."""

    def __init__(self, config: Config, context: Context) -> None:
        self._config = config
        self._clock = context.clock
        self._open: dict[str, OpenJob] = {}
        """By trace and span id, the one that was heard of longest ago first."""
        self._over: dict[str, str] = {}
        """Jobs that ended or were marked lost: a report may come late. The oldest first."""
        self._changed: set[str] = set()
        self._attentive_since_s = context.clock()
        """No report was missed from then on."""
        self._journal = Journal(context.directory, config.jobs_max) if context.directory else None
        self._count = context.stats.open_jobs.labels(context.component_id)
        self._events = {
            event: context.stats.lost_jobs.labels(context.component_id, event)
            for event in ("marked", "late_end", "overflow")
        }

    def attributes(self, signal: Signal) -> frozenset[str]:
        """What reports and jobs carry."""
        if signal is not Signal.TRACES:
            return frozenset()
        return frozenset((STATE, SPAN_ID, PARENT_SPAN_ID, START_TIME, OUTCOME, ATTEMPT, *TEXTS))

    def process(self, batch: Batch) -> None:
        """Remember the jobs that are reported, forget those that end. Python time is per report and job."""
        if batch.signal is not Signal.TRACES:
            return
        reports = batch.present(STATE) & batch.keep
        if np.count_nonzero(reports):
            self._hear(batch, np.flatnonzero(reports).tolist())
            if not self._config.keep_records:
                batch.drop(reports)
        ends = batch.present(OUTCOME) & batch.keep
        if np.count_nonzero(ends):
            for row in np.flatnonzero(ends).tolist():
                self._end(batch.trace_id(row) + batch.span_id(row), batch.raw(OUTCOME, row).decode())
        self._count.set(len(self._open))

    async def originate(self, entrance: Entrance) -> None:
        """Round after round: hand in the spans of lost jobs, write what changed."""
        try:
            for job in await asyncio.to_thread(self._journal.load) if self._journal else ():
                if job.key not in self._over and job.key not in self._open:
                    job.heard_s = self._clock()
                    self._open[job.key] = job
            before_s = self._clock()
            while True:
                await asyncio.sleep(ROUND_S)
                if self._clock() - before_s > ROUND_S + GAP_S:
                    self._attentive_since_s = self._clock()
                before_s = self._clock()
                await self._mark(entrance)
                await self._save()
        finally:
            if self._journal:
                self._journal.save(self._take_changes())
                self._journal.close()

    # -- what is heard -------------------------------------------------------------------------------------------------

    def _hear(self, batch: Batch, rows: Iterable[int]) -> None:
        codes, resources = batch.resources()
        payloads: dict[int, bytes] = {}
        for row in rows:
            code = int(codes[row])
            if code not in payloads:
                payloads[code] = resource_bytes(resources[code])
            job = read_report(batch, row, payloads[code], self._clock())
            if job is None or job.key in self._over:
                continue
            known = self._open.pop(job.key, None)
            if known is None and len(self._open) >= self._config.jobs_max:
                self._events["overflow"].inc()
                continue
            self._open[job.key] = job  # the newest last
            self._changed.add(job.key)

    def _end(self, key: str, outcome: str) -> None:
        known = self._open.pop(key, None)
        if known is not None:
            self._changed.add(key)
        elif self._over.get(key) == LOST and outcome != LOST:
            self._events["late_end"].inc()
        self._remember_over(key, outcome)

    def _remember_over(self, key: str, outcome: str) -> None:
        self._over.pop(key, None)
        self._over[key] = outcome
        if len(self._over) > self._config.jobs_max:
            del self._over[next(iter(self._over))]

    # -- what is not ---------------------------------------------------------------------------------------------------

    async def _mark(self, entrance: Entrance) -> None:
        """Hand in the spans of jobs that nothing was heard of; if the door is closed they keep."""
        while silent := self._silent():
            for job in silent:
                self._remember_over(job.key, LOST)
                del self._open[job.key]
            verdict = await entrance.accept(request_of(silent, self._config.lost_after))
            if not isinstance(verdict, Accepted):
                again = [job for job in silent if self._over.get(job.key) == LOST]
                for job in again:
                    del self._over[job.key]
                self._open = {**{job.key: job for job in again}, **self._open}
                self._attentive_since_s = self._clock()  # reports were refused like this request
                return
            self._events["marked"].inc(len(silent))
            self._changed.update(job.key for job in silent)
            self._count.set(len(self._open))

    def _silent(self) -> list[OpenJob]:
        until_s = self._clock() - self._config.lost_after
        silent: list[OpenJob] = []
        if self._attentive_since_s > until_s:
            return silent
        for job in self._open.values():
            if job.heard_s > until_s or len(silent) >= LOST_JOBS_REQUEST_MAX:
                break
            silent.append(job)
        return silent

    # -- over a restart ------------------------------------------------------------------------------------------------

    async def _save(self) -> None:
        if self._journal and self._changed:
            await asyncio.to_thread(self._journal.save, self._take_changes())

    def _take_changes(self) -> dict[str, OpenJob | None]:
        changed, self._changed = self._changed, set()
        return {key: self._open.get(key) for key in changed}


def read_report(batch: Batch, row: int, resource: bytes, now_s: float) -> OpenJob | None:
    """The job that a report is about; None if it says too little."""
    span_id = batch.raw(SPAN_ID, row).decode()
    parent_span_id = batch.raw(PARENT_SPAN_ID, row).decode()
    start_ns = batch.integer(START_TIME, row)
    if not start_ns or start_ns < 0 or not _is_id(span_id) or (parent_span_id and not _is_id(parent_span_id)):
        return None
    texts = {key: batch.raw(key, row).decode("utf-8", "replace") for key in TEXTS}
    fields: dict[str, Scalar] = {key: text for key, text in texts.items() if text}
    attempt = batch.integer(ATTEMPT, row)
    if attempt is not None:
        fields[ATTEMPT] = attempt
    seen_ns = max(int(batch.time[row]), start_ns)
    return OpenJob(batch.trace_id(row), span_id, parent_span_id, start_ns, seen_ns, now_s, resource, fields)


def _is_id(text: str) -> bool:
    return len(text) == 16 and all(digit in "0123456789abcdef" for digit in text)


def resource_bytes(attributes: Mapping[str, Value]) -> bytes:
    """A Resource with these attributes."""
    pairs = [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]
    return Resource(attributes=pairs).SerializeToString()


def request_of(jobs: Sequence[OpenJob], lost_after_s: float) -> bytes:
    """The spans of lost jobs, as their workers would have sent them; they end with the last report."""
    request = ExportTraceServiceRequest()
    by_resource: dict[bytes, Any] = {}
    for job in jobs:
        scope = by_resource.get(job.resource)
        if scope is None:
            group = request.resource_spans.add(resource=Resource.FromString(job.resource))
            scope = by_resource[job.resource] = group.scope_spans.add()
            scope.scope.name = "otel_pipeline.lost_jobs"
        span = scope.spans.add(
            trace_id=bytes.fromhex(job.trace_id),
            span_id=bytes.fromhex(job.span_id),
            parent_span_id=bytes.fromhex(job.parent_span_id),
            name=f"process {job.fields.get(DESTINATION, '')}".rstrip(),
            kind=CONSUMER,
            start_time_unix_nano=job.start_ns,
            end_time_unix_nano=job.seen_ns,
            flags=1,
        )
        own = {OUTCOME: LOST, OUTCOME_SOURCE: "silence", "error.type": LOST}
        for key, value in {**job.fields, **own}.items():
            span.attributes.add(key=key).value.CopyFrom(any_value(value))
        span.status.code = ERROR
        span.status.message = f"nothing was heard of the job for {lost_after_s:g} s"
    return request.SerializeToString()


class Journal:
    """The file of open jobs: LMDB, the ids to JSON. Trouble with it costs the memory over a restart, nothing else."""

    def __init__(self, directory: Path, jobs_max: int) -> None:
        self._directory = directory
        self._map_bytes = (jobs_max + 1024) * OPEN_JOB_BYTES_MAX
        self._file: lmdb.Environment | None = None
        self._quiet = Quiet(log)
        self._lock = threading.Lock()
        """A round that is cancelled leaves its thread behind, at work."""

    def load(self) -> list[OpenJob]:
        """Open the file and read it; one that cannot be read is replaced."""
        with self._lock:
            return self._load()

    def _load(self) -> list[OpenJob]:
        for _ in range(2):
            try:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = lmdb.open(
                    str(self._directory), map_size=self._map_bytes, sync=False, metasync=False, mode=0o600
                )
                with self._file.begin() as txn:
                    return [_from_json(value) for _, value in txn.cursor()]
            except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError, ValueError, KeyError, TypeError):
                log.warning("the file of open jobs in %s cannot be read: starting with an empty one", self._directory)
                self._close()
                for name in ("data.mdb", "lock.mdb"):
                    (self._directory / name).unlink(missing_ok=True)
            except (lmdb.Error, OSError) as error:
                log.warning("open jobs are not kept over a restart: %s", error)
                break
        return []

    def save(self, changes: Mapping[str, OpenJob | None]) -> None:
        """Write the jobs that are open still, delete the others."""
        with self._lock:
            if self._file is None or not changes:
                return
            try:
                with self._file.begin(write=True) as txn:
                    for key, job in changes.items():
                        if job is None:
                            txn.delete(key.encode())
                        else:
                            txn.put(key.encode(), _to_json(job))
            except lmdb.Error as error:
                self._quiet.warning("open jobs are not kept over a restart: %s", error)

    def close(self) -> None:
        """Give up the file; may be called twice."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _to_json(job: OpenJob) -> bytes:
    resource = base64.b64encode(job.resource).decode()
    known = (job.trace_id, job.span_id, job.parent_span_id, job.start_ns, job.seen_ns, resource, job.fields)
    return json.dumps(known, separators=(",", ":")).encode()


def _from_json(text: bytes) -> OpenJob:
    trace_id, span_id, parent_span_id, start_ns, seen_ns, resource, fields = json.loads(text)
    return OpenJob(
        trace_id, span_id, parent_span_id, int(start_ns), int(seen_ns), 0.0, base64.b64decode(resource), dict(fields)
    )
