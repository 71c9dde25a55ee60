"""What is saved with an RQ job besides RQ's own fields, and what identifies the job.

It is JSON in a field of the job's hash: `headers`, the context of whoever enqueued it, and `attempt`, the number of the
latest one. RQ reads over fields that it does not know. It is not in `job.meta`: programs pass that on as arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry.context import Context

from otel_pipeline.worker import identity
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.messages import extract

FIELD: Final = "otelp"
"""Of the job's hash."""
ATTRIBUTE: Final = "_otelp"
"""Of the job object."""


def to_dict(wrapped: Any, rq_job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `Job.to_dict`, which everything that saves a job calls."""
    fields = wrapped(*args, **kwargs)
    _save(rq_job, fields)
    return fields


def restore(wrapped: Any, rq_job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `Job.restore`."""
    result = wrapped(*args, **kwargs)
    _load(rq_job, args[0] if args else kwargs.get("raw_data"))
    return result


@hook("rq.save")
def _save(rq_job: Any, fields: dict[str, Any]) -> None:
    known = vars(rq_job).get(ATTRIBUTE)
    if known:
        fields[FIELD] = json.dumps(known, separators=(",", ":"))


@hook("rq.load")
def _load(rq_job: Any, raw: Any) -> None:
    value = raw.get(FIELD.encode()) or raw.get(FIELD)
    known = json.loads(value) if value else None
    if isinstance(known, dict):
        setattr(rq_job, ATTRIBUTE, known)


def carried(rq_job: Any) -> dict[str, Any]:
    """What is saved with the job; it may be changed."""
    known = vars(rq_job).get(ATTRIBUTE)
    if not isinstance(known, dict):
        known = {}
        setattr(rq_job, ATTRIBUTE, known)
    return known


def parent_of(rq_job: Any) -> Context | None:
    """The context that came with a job: ours, or that of another instrumentation, which writes into the meta."""
    headers = carried(rq_job).get("headers")
    return extract(headers if isinstance(headers, dict) else rq_job.meta if isinstance(rq_job.meta, dict) else None)


def message_of(rq_job: Any, *, read: bool = True, loaded: bool = False) -> dict[str, Any]:
    """What identifies the job.

    `read` is whether its arguments may be asked for: that unpickles them. `loaded` is whether its function may be: that
    imports the program's modules.
    """
    meta = dict(rq_job.meta) if isinstance(rq_job.meta, dict) else {}
    message: dict[str, Any] = {"id": rq_job.id, "meta": meta, "args": [], "kwargs": {}}
    for part in _parts(rq_job, loaded=loaded) if read else ():
        message.update(part)
    return message


def _parts(rq_job: Any, *, loaded: bool) -> Iterator[dict[str, Any]]:
    try:
        args, kwargs = tuple(rq_job.args or ()), dict(rq_job.kwargs or {})
        yield {"args": list(args), "kwargs": kwargs}
        function = rq_job.func if loaded else None
        if function is not None:
            yield identity.call(function, args, kwargs)
    except Exception:  # noqa: BLE001  a job that cannot be read is RQ's to report
        return


def seconds(at: datetime | None) -> float | None:
    """RQ's times are in UTC; those of older versions do not say so."""
    if at is None:
        return None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
