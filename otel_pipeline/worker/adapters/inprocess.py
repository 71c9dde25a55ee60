"""Queues inside the process (`asyncio.Queue`, `queue.Queue` and their kinds) that the program's own code fills.

What is put inside a job or a span carries its context to whoever gets it:

 * inside a job that is open: the getter works on that job until it gets the next item or ends,
 * inside a web request or another span: the getter begins a job of its own, a child of that span, and it ends the same
   way (flow.py).

A getter that is itself inside a job or a web request goes on with what it is at. The queues of libraries are none of
our business: what they put is told by the file that their code is in, before anything else is done.

The items are not touched. What came with an item is found by its identity, in a table of the queue that is emptied
whenever the queue is.
"""

from __future__ import annotations

import asyncio
import dis
import functools
import queue
import re
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any, Final

import wrapt
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from otel_pipeline.worker.evidence import Evidence
from otel_pipeline.worker.flow import Flow, flow_of, next_pop, popped, running_task, task_evidence, this_flow
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, Origin, current_job, enter, job_start
from otel_pipeline.worker.serving import in_a_request
from otel_pipeline.worker.settings import settings
from otel_pipeline.worker.tasks import is_own_file, join, part

SYSTEM: Final = "in_process"
WAITING_MAX: Final = 4096
"""Items of one queue whose context is kept; the oldest is forgotten."""
FIELDS_MAX: Final = 64
"""Attributes of an item that its identity is read from."""
_STATE: Final = "_otel_pipeline"
_WORDS: Final = re.compile(r"[a-z]+")
_MESSAGES: Final = frozenset(
    [
        "message",
        "messages",
        "msg",
        "msgs",
        "notification",
        "notifications",
        "broadcast",
        "stream",
        "streams",
        "subscriber",
        "subscribers",
        "listener",
        "listeners",
        "ws",
        "websocket",
        "sse",
        "signal",
        "signals",
        "stdout",
        "stderr",
        "ui",
        "display",
    ]
)
"""Of names of queues that people are told something through."""
_ASYNCIO: Final = str(Path(asyncio.__file__).parent) + "/"
_THEIR_FILES: Final = (asyncio.queues.__file__, queue.__file__)


@dataclass(frozen=True, slots=True)
class Put:
    """What came with an item."""

    context: Context
    job: Job | None
    """The item is work on this job: it counts as one that works on it until it is got, and then its getter does."""


@dataclass(slots=True)
class Carrier:
    """Of one queue that the program puts work into."""

    name: str
    wanted: bool
    """The operator did not exclude it."""
    waiting: dict[int, deque[Put]] = field(default_factory=dict)


@dataclass(slots=True)
class Joined:
    """A flow that works on a job which came with an item."""

    job: Job
    before: Context
    end: weakref.finalize[Any, Flow] | None = None
    """Of a thread, that ends with it."""


_joined: Final[weakref.WeakKeyDictionary[Flow, Joined]] = weakref.WeakKeyDictionary()


# -- put ---------------------------------------------------------------------------------------------------------------


def _wrap_put(kind: type, name: str) -> None:
    original = getattr(kind, name)

    @functools.wraps(original)
    def put(self: Any, item: Any, *args: Any, **kwargs: Any) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename in _THEIR_FILES:
            frame = frame.f_back
        if frame is None or not _is_program(frame.f_code.co_filename):
            return original(self, item, *args, **kwargs)
        carrier = _putting(self, item, frame)
        try:
            return original(self, item, *args, **kwargs)
        except BaseException:
            if carrier is not None:
                _refused(carrier, item)
            raise

    setattr(kind, name, put)


@functools.lru_cache(maxsize=4096)
def _is_program(file: str) -> bool:
    """The event loop puts where the program told it to: `loop.call_soon_threadsafe(queue.put_nowait, item)`."""
    return is_own_file(file) or file.startswith(_ASYNCIO)


@hook("inprocess.put")
def _putting(one: Any, item: object, frame: FrameType) -> Carrier | None:
    """Remembers the context for the item; None if there is none to remember."""
    job = current_job()
    if item is None or (job is None and not trace.get_current_span().get_span_context().is_valid):
        return None
    carrier: Carrier | None = one.__dict__.get(_STATE)
    if carrier is None:
        name = _name_at(frame) or frame.f_code.co_name
        carrier = one.__dict__[_STATE] = Carrier(name, _wanted(name))
    if not carrier.wanted:
        return None
    if len(carrier.waiting) >= WAITING_MAX:
        _forget(carrier.waiting.pop(next(iter(carrier.waiting))))
    if job is not None:
        join(job)
    carrier.waiting.setdefault(id(item), deque(maxlen=WAITING_MAX)).append(Put(context.get_current(), job))
    return carrier


def ignore(one: Any) -> None:
    """What is put into this queue is no work, whoever puts it there."""
    one.__dict__[_STATE] = Carrier("", wanted=False)


@hook("inprocess.refused")
def _refused(carrier: Carrier, item: object) -> None:
    waiting = carrier.waiting.get(id(item))
    if waiting:
        _forget([waiting.pop()])


def _forget(puts: Iterable[Put]) -> None:
    for put in puts:
        if put.job is not None:
            _uncount(put.job)


def _uncount(job: Job, *evidence: Evidence) -> None:
    """One less works on the job. What its threads said of it stands."""
    if job.left or evidence:
        part(job, *evidence)
        return
    with job.lock:
        job.children -= 1


# -- get ---------------------------------------------------------------------------------------------------------------


def _wrap_wait(kind: type, name: str) -> None:
    """A get that waits: the flow is done with the item before as soon as it begins to."""

    def get(wrapped: Callable[..., Any], one: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        carrier = one.__dict__.get(_STATE)
        if carrier is not None:
            _asking(carrier)
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(kind, name, get)


def _wrap_take(kind: type, name: str) -> None:
    """What takes an item out, by itself or for one that has waited for it."""
    original = getattr(kind, name)

    @functools.wraps(original)
    def take(self: Any, *args: Any, **kwargs: Any) -> Any:
        carrier = self.__dict__.get(_STATE)
        if carrier is not None and sys._getframe(1).f_code.co_filename != asyncio.queues.__file__:
            _asking(carrier)
        item = original(self, *args, **kwargs)
        carrier = self.__dict__.get(_STATE)
        if carrier is not None:
            _got(carrier, self, item)
        return item

    setattr(kind, name, take)


@hook("inprocess.ask")
def _asking(carrier: Carrier) -> None:
    """The flow wants the next item: it is done with what it got before."""
    joined = _joined.pop(this_flow(), None)
    if joined is not None:
        if joined.end is not None:
            joined.end.detach()
        if current_job() is joined.job:
            context.attach(joined.before)
        _uncount(joined.job)
    next_pop([carrier.name])


@hook("inprocess.got")
def _got(carrier: Carrier, one: Any, item: object) -> None:
    waiting = carrier.waiting.get(id(item))
    put = waiting.popleft() if waiting else None
    if not waiting:
        carrier.waiting.pop(id(item), None)
    if carrier.waiting and not one.qsize():  # items were removed by other means
        stale, carrier.waiting = carrier.waiting, {}
        for each in stale.values():
            _forget(each)
    if put is None:
        return
    if put.job is not None and not put.job.over:
        if put.job is current_job() or _has_job(this_flow()) or in_a_request():
            _uncount(put.job)
        else:
            _join(put.job)
    elif current_job() is None and not in_a_request() and _span(put.context) is not _span():
        popped(job_start(Origin(SYSTEM, carrier.name), _message(item), parent=put.context))


def _span(within: Context | None = None) -> Span:
    return trace.get_current_span(within)


def _has_job(flow: Flow) -> bool:
    return flow.job is not None and not flow.job.over


def _join(job: Job) -> None:
    """This flow works on the job from now on; the item was counted as one that does."""
    flow = this_flow()
    joined = _joined[flow] = Joined(job, context.get_current())
    enter(job)
    task = running_task()
    if task is not None:
        task.add_done_callback(_task_over)
    else:
        joined.end = weakref.finalize(flow, _uncount, job)
        joined.end.atexit = False


@hook("inprocess.task_over")
def _task_over(task: asyncio.Task[Any]) -> None:
    """A task that existed to get the item, such as that of `asyncio.wait_for`, leaves the job to the one that waits."""
    flow = flow_of(task)
    joined = _joined.pop(flow, None)
    if joined is None:
        return
    creator = flow.creator() if flow.creator is not None else None
    code = getattr(task.get_coro(), "cr_code", None)
    if creator is not None and not creator.done() and code is not None and code.co_filename in _THEIR_FILES:
        target = flow_of(creator)
        if target.context is not None and target not in _joined:
            _joined[target] = Joined(joined.job, target.context.run(context.get_current))
            target.context.run(enter, joined.job)
            creator.add_done_callback(_task_over)
            return
    _uncount(joined.job, *task_evidence(task))


@hook("inprocess.done")
def _done(carrier: Carrier) -> None:
    """`task_done`: the item is finished, even if the next one is long in coming."""
    job = this_flow().job
    if job is not None and job.origin.system == SYSTEM and job.origin.destination == carrier.name:
        job.settle()


def _wrap_done(kind: type, name: str) -> None:
    original = getattr(kind, name)

    @functools.wraps(original)
    def task_done(self: Any) -> Any:
        carrier = self.__dict__.get(_STATE)
        if carrier is not None:
            _done(carrier)
        return original(self)

    setattr(kind, name, task_done)


# -- names and messages ------------------------------------------------------------------------------------------------


def _name_at(frame: FrameType) -> str | None:
    """What the program calls the queue: the name before the last `.put` that was executed."""
    name = before = None
    for each in dis.get_instructions(frame.f_code):
        if each.offset > frame.f_lasti:
            break
        if each.argval in {"put", "put_nowait"} and each.opname.startswith("LOAD_"):
            name = before
        before = each.argval if each.opname.startswith("LOAD_") and isinstance(each.argval, str) else None
    return name.strip("_") if name else None


def _wanted(name: str) -> bool:
    """By its name: results, events, logs and messages are no work, unless the operator names the queue."""
    from otel_pipeline.worker.adapters.redis.keys import NOT_WORK  # noqa: PLC0415  most programs have no such queue

    ours = settings()
    if any(fnmatchcase(name, pattern) for pattern in ours.queues_excluded):
        return False
    named = {pattern for pattern in ours.queues if fnmatchcase(name, pattern)}
    words = set(_WORDS.findall(name.lower()))
    return bool(named - {"*"}) or bool(named and words.isdisjoint(NOT_WORK | _MESSAGES))


def _message(item: object) -> object:
    """What the identity is read from: of a tuple each element, of an object its attributes."""
    if isinstance(item, tuple | list):
        return {"args": [_plain(each) for each in item[:FIELDS_MAX]], "kwargs": {}}
    return _plain(item)


def _plain(item: object) -> object:
    if isinstance(item, str | bytes | int | float | dict) or item is None:
        return item
    attributes = getattr(item, "__dict__", None)
    if isinstance(attributes, dict):
        return {name: attributes[name] for name in list(attributes)[:FIELDS_MAX]}
    slots = getattr(type(item), "__slots__", ())
    return {name: getattr(item, name, None) for name in list(slots)[:FIELDS_MAX]}


def patch() -> None:
    """Wraps both kinds of queue; their subclasses inherit it."""
    _wrap_put(asyncio.Queue, "put_nowait")
    _wrap_wait(asyncio.Queue, "get")
    _wrap_take(asyncio.Queue, "get_nowait")
    _wrap_done(asyncio.Queue, "task_done")
    _wrap_put(queue.Queue, "put")
    _wrap_take(queue.Queue, "get")
    _wrap_done(queue.Queue, "task_done")
