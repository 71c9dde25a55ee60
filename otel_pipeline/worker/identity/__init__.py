"""Whose job it is and which: the fields of a job, read from its message by configuration and by good defaults.

A message is bytes or text (JSON, a bare id, `id|user`, `tts:123`), a mapping (with bytes or text, as Redis gives hashes
and stream entries), a list, an object with plain attributes, or for frameworks
`{"args": [...], "kwargs": {...}, "meta": {...}, "id": ...}`; `call` makes the latter of a function's arguments.

`OTEL_PIPELINE_JOB_FIELDS` is a mapping of fields to paths (the path language is told in paths.py), a list of paths is
tried in order, and after it the defaults; an empty list switches a field off:

    job_id: metadata.id
    user: [meta.email, kwargs.user_id]
    tier: env:GPU_TIER
    attribute.venue: canvas.venue          # an attribute `venue` of your own
    acme.canvas: canvas.name               # or with its full name
    side: "video_orchestrator:job:{id}"    # a Redis key (a string or a hash) that is read before the job starts
    queues:
      "tts:*": {characters: script|len}    # for queues whose name matches, before the general ones

Fields: job_id, user, workflow, model, tier, priority, type, correlation_id, attempt, backend, images, video_seconds,
audio_seconds, characters, megapixels, or an attribute's full name, or `attribute.<name>`. A path that cannot be read is
told of once in the log of `otel_pipeline.worker`; the other fields are read nevertheless.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

from opentelemetry.util.types import AttributeValue

from otel_pipeline.worker import names
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.identity import job_fields
from otel_pipeline.worker.identity.field_plan import plans
from otel_pipeline.worker.identity.graphs import graph_hash, graph_model, graph_quantities, is_graph
from otel_pipeline.worker.identity.job_fields import ANYWHERE_BUT, BY_NAME, FIELDS, GRAPHS, WANTED, Field
from otel_pipeline.worker.identity.quantities import quantities
from otel_pipeline.worker.reading.payload import TEXT_MAX, Index, Payload, is_structure, item, member, scalar
from otel_pipeline.worker.settings import settings

__all__ = ["Side", "call", "defaults", "fields", "graph_hash", "graph_model", "graph_quantities", "job_id", "side_keys"]

DISTINCT_MAX: Final = 200
"""Values of one dimension of the operator's own in one process: each is a time series of its own."""
OTHER: Final = "_other"
SCANNED_MAX: Final = 64 * 1024
"""Characters at each end of a message too long to be parsed that are searched for its id."""
PARAMETERS_MAX: Final = 64
"""Parameters of a function."""
DECORATORS_MAX: Final = 8
"""Around a function whose parameters are asked for."""
MODEL_VARIABLES: Final = ("WORKER_MODEL_ID", "COMFY_MODEL", "COMFYUI_MODEL", "MODEL_ID", "MODEL_NAME")
"""Where workers that serve one model are told which."""

_SCANNED: Final = re.compile(
    r'"(job_id|jobId|task_id|taskId|id|request_id)"\s*:\s*(?:"([\w.:@-]{1,128})"|(\d{1,18})\b)'
)
_BARE: Final = re.compile(r"[\w.@:+=#-]{1,200}")
_TYPED: Final = re.compile(r"([A-Za-z][A-Za-z_-]{0,31}):([^:\s]+)")
_ID_WORDS: Final = frozenset({"job", "jobs", "task", "id", "request", "queue", "item", "message", "msg"})
_ARGUMENT_ID: Final = re.compile(
    r"\d{1,18}|[0-9a-fA-F]{8,64}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9A-HJKMNP-TV-Z]{26}|"
    r"[A-Za-z][A-Za-z0-9]{0,31}(?:[-_:][A-Za-z0-9]{1,40}){0,7}[-_:](?=[A-Za-z0-9]*\d)[A-Za-z0-9]{1,40}"
)
_WORDS_OF_QUEUES: Final = re.compile(r"[^A-Za-z]+")
_TIERS: Final = frozenset({"free", "basic", "pro", "plus", "premium", "paid", "vip", "enterprise", "trial", "business"})
_PRIORITIES: Final = frozenset(
    {"urgent", "high", "normal", "medium", "low", "bulk", "express", "realtime", "batch", "background"}
)
_NO_ID: Final = frozenset(
    {"prompt", "path", "file", "filename", "image", "url", "name", "steps", "seed", "count", "index"}
)
"""Names of first arguments that are not the job's id, whatever they look like."""
_SEPARATORS: Final = re.compile(r"[|,;\t]")
_FIELDS_OF: Final[dict[str, tuple[int, ...]]] = {
    name: tuple(at for at, field in enumerate(FIELDS) if name in field.firsts and field.name != "job_id")
    for name in WANTED
}
"""Which of the fields a name may begin a way to, by their places; the job's id has rules of its own."""


@dataclass(frozen=True, slots=True)
class Side:
    """What the Redis key of a job holds: hand it to `fields` or `Job.learn` in place of a message."""

    key: str
    value: object
    job_id: str = ""


def fields(message: object, queue: str | None = None) -> dict[str, AttributeValue]:
    """The fields of a job by attribute, as far as the message tells them. Raises nothing, changes nothing."""
    return _fields(message, queue) or {}


def job_id(message: object, known: Mapping[str, AttributeValue] | None = None) -> str | None:
    """The job's id: from its fields if they were read already, else from the message."""
    found = (fields(message) if known is None else known).get(names.JOB_ID)
    return str(found) if found is not None else None


def side_keys(identifier: str, queue: str | None = None) -> list[str]:
    """The Redis keys, strings or hashes, that are read before this job starts; `Side(key, value, id)` reads them."""
    return [_fill(template, identifier) for template in _sides(queue)]


def defaults() -> dict[str, AttributeValue]:
    """What the environment tells of every job of this process, where the job itself does not."""
    found = next((value for name in MODEL_VARIABLES if (value := job_fields.model(os.environ.get(name)))), None)
    return {names.MODEL: found} if found else {}


def pseudonym(text: str) -> str:
    """What stands for a user: 16 hexadecimal digits, the same on all workers that have the same key."""
    return job_fields.user(text) or ""


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    """The message that a call of a function is: positional arguments under the names of their parameters too.

    `rest` is what the framework adds: `id`, `meta`. Nothing of the function is run.
    """
    named = dict(zip(_parameters(function), args, strict=False))
    return {"args": list(args[:PARAMETERS_MAX]), "kwargs": {**named, **kwargs}, **rest}


def _fill(template: str, identifier: str) -> str:
    return template.replace("{id}", identifier)


def _sides(queue: str | None) -> list[str]:
    plan = plans(settings().job_fields)
    return list(dict.fromkeys(template for each in plan.of(queue) for template in each.sides))


@hook("identity.fields")
def _fields(message: object, queue: str | None) -> dict[str, AttributeValue]:
    if isinstance(message, (str, bytes, bytearray)) and len(message) > TEXT_MAX:
        return _scan(message)
    sides: dict[str, object] = {}
    if isinstance(message, Side):
        filled = {_fill(template, message.job_id): template for template in _sides(queue)}
        sides = {filled.get(message.key, message.key): message.value}
        message = message.value
    payload = Payload(message)
    plain = scalar(payload.root)
    found = _default(payload, queue) if plain is None else {**_of_queue(queue), **_bare(plain)}
    return _configured(payload, queue, sides, found)


def _configured(
    payload: Payload, queue: str | None, sides: dict[str, object], found: dict[str, AttributeValue]
) -> dict[str, AttributeValue]:
    """Adds what is configured to what is found by default."""
    done: set[str] = set()
    for plan in plans(settings().job_fields).of(queue):
        for attribute, paths in plan.paths.items():
            if attribute in done:
                continue
            if not paths:
                done.add(attribute)
                found.pop(attribute, None)
            for path in paths:
                value = _clean(attribute, path.read(payload, sides))
                if value is None and path.side and not sides and is_structure(payload.root):
                    # The key's value came without its key.
                    value = _clean(attribute, path.read(payload, {path.side: payload.root}))
                if value is not None:
                    done.add(attribute)
                    found[attribute] = value
                    break
    return found


def _clean(attribute: str, value: object) -> AttributeValue | None:
    if value is None:
        return None
    known = BY_NAME.get(attribute)
    return known.clean(value) if known is not None else _limited(attribute, job_fields.dimension(value))


_distinct: Final[dict[str, set[str]]] = {}
_distinct_lock: Final = threading.Lock()


def _limited(attribute: str, value: AttributeValue | None) -> AttributeValue | None:
    """The value, or `_other` if this dimension has too many already."""
    if value is None or isinstance(value, bool):
        return value
    with _distinct_lock:
        known = _distinct.setdefault(attribute, set())
        if str(value) not in known:
            if len(known) >= DISTINCT_MAX:
                return OTHER
            known.add(str(value))
    return value


# -- defaults ----------------------------------------------------------------------------------------------------------


def _default(payload: Payload, queue: str | None) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {}
    index = Index(payload, WANTED)
    identifier = _job_id(payload, index)
    if identifier is not None:
        found[names.JOB_ID] = identifier
    for at in sorted({at for name in index.found for at in _FIELDS_OF.get(name, ())}):
        value = _search(index, FIELDS[at])
        if value is not None:
            found[FIELDS[at].attribute] = value
    for name, value in _of_queue(queue).items():
        found.setdefault(name, value)
    found.update(quantities(index, f"{found.get(names.JOB_TYPE, '')} {queue or ''}"))
    graph = _graph(index)
    if graph is not None:
        told = {
            names.WORKFLOW: graph_hash(graph),
            names.MODEL: job_fields.model(graph_model(graph)),
            **graph_quantities(graph),
        }
        for name, each in told.items():
            if each is not None:
                found.setdefault(name, each)
    return found


def _search(index: Index, field: Field) -> AttributeValue | None:
    for steps in field.defaults:
        if steps[0] not in index.found:
            continue
        for _, _, value in index.walked(steps):
            cleaned = field.clean(value) if value is not None else None
            if cleaned is not None:
                return cleaned
    return None


def _job_id(payload: Payload, index: Index) -> str | None:
    """The program's own id goes before the framework's, which is beside the arguments."""
    root = payload.root
    for steps in BY_NAME["job_id"].defaults:
        if steps[0] not in index.found:
            continue
        for place, part, value in index.walked(steps):
            if steps == ("id",) and (place in ANYWHERE_BUT or (part is root and _is_call(root))):
                continue
            found = job_fields.identifier(value)
            if found is not None:
                return found
    return _argument_id(root) or job_fields.identifier(member(root, "id"))


def _is_call(root: object) -> bool:
    return is_structure(member(root, "args")) or member(root, "kwargs") is not None


def _argument_id(root: object) -> str | None:
    """The first argument or element of a message without names: in queues of this kind it is the job's id."""
    arguments = root if isinstance(root, (list, tuple)) else member(root, "args")
    first = item(arguments, 0)
    if first is None:
        first = item(arguments, 1)  # where the first one is the framework's
    text = job_fields.identifier(first)
    if text is None or not _ARGUMENT_ID.fullmatch(text):
        return None
    named = member(root, "kwargs")
    if isinstance(named, dict) and len(named) <= PARAMETERS_MAX:  # adapters add the names of positional arguments
        name = next((key for key, value in named.items() if value is first), None)
        if name in WANTED or name in _NO_ID:
            return None
    return text


def _bare(plain: str | float) -> dict[str, AttributeValue]:
    """A text that is no JSON: an id, perhaps with a word before it or with more behind it."""
    if isinstance(plain, (bool, float)):
        return {}
    first = _SEPARATORS.split(str(plain)[:SCANNED_MAX], maxsplit=1)[0].strip()
    if not _BARE.fullmatch(first) or job_fields.identifier(first) is None:
        return {}
    typed = _TYPED.fullmatch(first)
    if typed is None:
        return {names.JOB_ID: str(job_fields.identifier(first))}
    found: dict[str, AttributeValue] = {names.JOB_ID: typed[2]}
    if typed[1].lower() not in _ID_WORDS:
        found[names.JOB_TYPE] = typed[1]
    return found


def _scan(message: str | bytes | bytearray) -> dict[str, AttributeValue]:
    """The id in a message too long to be parsed."""
    ends = message[:SCANNED_MAX], message[-SCANNED_MAX:]
    texts = [each if isinstance(each, str) else bytes(each).decode("utf-8", "replace") for each in ends]
    best: tuple[int, str] | None = None
    order = job_fields.JOB_ID_KEYS
    for text in texts:
        for match in _SCANNED.finditer(text):
            rank = order.index(match[1])
            if best is None or rank < best[0]:
                best = rank, match[2] or match[3]
    found = job_fields.identifier(best[1]) if best is not None else None
    return {names.JOB_ID: found} if found else {}


def _graph(index: Index) -> object:
    for _, part in index.parts:
        if is_graph(part):
            return part
    named = (key for key in GRAPHS if key in index.found)
    return next((value for key in named for value in index.values(key) if is_graph(value)), None)


def _of_queue(queue: str | None) -> dict[str, AttributeValue]:
    """A tier or priority that the queue's name ends in: `video:high`, `jobs-free`."""
    last = _last_word(queue) if queue else ""
    if last in _TIERS:
        return {names.JOB_TIER: last}
    return {names.JOB_PRIORITY: last} if last in _PRIORITIES else {}


@functools.lru_cache(maxsize=512)
def _last_word(queue: str) -> str:
    return _WORDS_OF_QUEUES.split(queue.lower())[-1]


@functools.lru_cache(maxsize=512)
def _names_of(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[: min(code.co_argcount, PARAMETERS_MAX)]


def _parameters(function: object) -> tuple[str, ...]:
    """Names of the positional parameters, without `self`; none if they cannot be told."""
    for _ in range(DECORATORS_MAX):
        if isinstance(function, MethodType):
            function = function.__func__
        if not isinstance(function, FunctionType):
            return ()
        inner = function.__dict__.get("__wrapped__")
        if inner is None:
            break
        function = inner
    parameters = _names_of(function.__code__) if isinstance(function, FunctionType) else ()
    return parameters[1:] if parameters[:1] in {("self",), ("cls",)} else parameters
