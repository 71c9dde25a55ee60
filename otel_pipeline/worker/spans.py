"""A span processor that tells every span which job it belongs to, so that a gateway, which sees no trees, can too."""

from __future__ import annotations

import time
from typing import Any, Final

from opentelemetry import baggage
from opentelemetry.context import Context

from otel_pipeline.worker import names, serving
from otel_pipeline.worker.flow import touch
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job

BOOKKEEPING: Final = frozenset(
    f"opentelemetry.instrumentation.{name}"
    for name in (
        *("redis", "sqlalchemy", "asyncpg", "psycopg", "psycopg2", "aiopg", "pymysql", "mysql", "mysqlclient"),
        *("sqlite3", "dbapi", "pymongo", "pymemcache", "cassandra", "elasticsearch", "tortoiseorm"),
    )
)
"""Instrumentations of databases: a loop that hands its jobs to others notes there that it did, and works on none."""


class JobAttributes:
    """Has the shape of an SDK `SpanProcessor`, whose module a worker's start must not import."""

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        serving.began(span)
        _describe(span, parent_context)

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:
        serving.ended(span)
        _ended(span)

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  the SDK's signature
        return True


@hook("spans.describe")
def _describe(span: Any, parent_context: Context | None) -> None:
    job = current_job(parent_context)
    if job is not None:
        known: Any = job.fields
        job.begun_ns = time.time_ns()
        touch(busy=not _is_bookkeeping(span))
    else:
        known = baggage.get_all(parent_context)
        if not known:
            return
    told = span.attributes.copy()  # a plain dict: to ask the SDK's mapping for what it has not takes an exception each
    found = {key: known[key] for key in names.CARRIED if key in known and key not in told}
    if found:
        span.set_attributes(found)


@hook("spans.ended")
def _ended(span: Any) -> None:
    """A job that was settled lasts until the last of its spans is over."""
    touch(busy=not _is_bookkeeping(span))


def _is_bookkeeping(span: Any) -> bool:
    scope = getattr(span, "instrumentation_scope", None)
    return scope is not None and scope.name in BOOKKEEPING
