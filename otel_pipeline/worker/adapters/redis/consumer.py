"""The consuming side: a pop, what came with its elements, and the jobs that begin with them.

`ask` is called before a pop and ends the job before; `Delivery.start`, called with the answer, begins the next. In
between the adapter makes the round trip for the side keys. What a loop does is remembered by its flow (flow.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import identity, names
from otel_pipeline.worker.adapters.redis import commands
from otel_pipeline.worker.adapters.redis import context as redis_context
from otel_pipeline.worker.adapters.redis import groups as redis_groups
from otel_pipeline.worker.adapters.redis.commands import Element, Found
from otel_pipeline.worker.adapters.redis.context import Carried, Command
from otel_pipeline.worker.adapters.redis.keys import Purpose, is_queue, is_reply, purpose
from otel_pipeline.worker.flow import Flow, next_pop, popped, this_flow
from otel_pipeline.worker.jobs import Job, Origin, current_job, job_start
from otel_pipeline.worker.messages import extract
from otel_pipeline.worker.process import records
from otel_pipeline.worker.settings import settings

if TYPE_CHECKING:
    from otel_pipeline.worker.adapters.redis.batch import Batch

SEEN_MAX: Final = 256
"""Members of sorted sets that a loop looked at and may take next."""
SIDES_MAX: Final = 4
"""Keys beside the queue that are read for one job."""
SITES_MAX: Final = 16
"""Lines of the program that one loop pops at."""

Site = tuple[CodeType, int]

_polls: Final = metrics.get_meter("otel_pipeline.worker", __version__).create_counter(
    "otel_pipeline.queue.polls", unit="{poll}", description="Pops of a queue, by whether there was a message."
)


@dataclass(slots=True)
class Delivery:
    """An element and what came with it."""

    element: Element
    carried: Carried | None = None
    tries: int = 0
    """How often it came again."""
    about: list[identity.Side] | None = None
    """What `sides` found, once it was asked."""
    known: dict[str, AttributeValue] = field(default_factory=dict)
    """Fields of the job from keys beside the queue, if the operator named such keys."""

    def sides(self) -> list[identity.Side]:
        """Keys that say more of the job than its element does; without their values."""
        if self.about is None:
            self.about = self._sides() if settings().job_fields else []
        return self.about

    def _sides(self) -> list[identity.Side]:
        element = self.element
        identifier = identity.job_id(element.message, identity.fields(element.message, element.key))
        keys = identity.side_keys(identifier, element.key)[:SIDES_MAX] if identifier else []
        return [identity.Side(key, None, identifier) for key in keys if identifier]

    def start(self) -> Job:
        """Begins the job of the element, in this task or thread."""
        element, carried = self.element, self.carried
        waited_s = redis_context.age_s(carried) if carried else None
        attributes = {**self.known, **({names.JOB_QUEUE_WAIT_S: waited_s} if waited_s is not None else {})}
        job = job_start(
            Origin("redis", element.key, message_id=element.message_id, group=element.group),
            element.message,
            parent=extract(carried.headers) if carried else None,
            attempt=max((carried.attempt if carried else 1) + self.tries, element.attempt),
            attributes=attributes,
        )
        job.element = element.raw
        redis_groups.watch(job)
        popped(job)
        return job


@dataclass(eq=False)
class Loop:
    """What is remembered of a flow that pops."""

    sites: set[Site] = field(default_factory=set)
    seen: dict[bytes, str] = field(default_factory=dict)
    """Members of sorted sets that it looked at, and of which."""
    batch: Batch | None = None
    """Elements that it got at once and has not all worked on."""
    moved: set[str] = field(default_factory=set)
    """Queues that it takes from only to put elements into others."""
    moving: dict[bytes, None] = field(default_factory=dict)
    """Elements that it took from those, and has not put anywhere yet."""
    taken: Job | None = None
    """The job that it took last from a sorted set, by looking and removing."""
    carried: Carried | None = None
    """What came with that job."""


_loops: Final[weakref.WeakKeyDictionary[Flow, Loop]] = weakref.WeakKeyDictionary()


def loop_of(flow: Flow) -> Loop:
    loop = _loops.get(flow)
    if loop is None:
        loop = _loops[flow] = Loop()
    return loop


def this_loop() -> Loop:
    return loop_of(this_flow())


def known_loop() -> Loop | None:
    """That of this flow, if it ever popped."""
    return _loops.get(this_flow()) if _loops else None


def ask(keys: Iterable[str], site: Site | None) -> bool:
    """Before a pop: ends the job before, if this is the loop's next round. True if what comes is a job."""
    wanted = [key for key in keys if is_queue(key) and not is_reply(key)]
    if not wanted or site is None:
        return False
    flow, inherited = this_flow(), current_job()
    loop = loop_of(flow)
    if site[1] and site in loop.sites:
        flow.loop_keys.update(wanted)  # the line that popped the job before, with another queue in turn
    if not next_pop(wanted):
        return False
    records.consuming()
    if site[1] and len(loop.sites) < SITES_MAX:
        loop.sites.add(site)
    _close(loop)
    owner = inherited.flow() if inherited is not None and inherited.flow is not None else None
    if isinstance(owner, Flow) and owner is not flow and owner in _loops:
        _close(_loops[owner])
    return True


def _close(loop: Loop) -> None:
    batch, loop.batch = loop.batch, None
    if batch is not None:
        batch.close()


def count(keys: Sequence[str], *, empty: bool) -> None:
    """One poll more, of the queue that answered or of the first that was asked."""
    if keys:
        _polls.add(1, {names.MESSAGING_DESTINATION: keys[0], "result": "empty" if empty else "message"})


def looked(key: str, members: Sequence[bytes]) -> None:
    """The loop saw members of a sorted set; it may take one of them next."""
    loop = this_loop()
    for member in members:
        if len(loop.seen) >= SEEN_MAX:
            del loop.seen[next(iter(loop.seen))]
        loop.seen[member] = key


def is_delayed_queue(key: str) -> bool:
    """Whether members that are looked at and then removed are taken as jobs: only by a name that says so."""
    return purpose(key) is Purpose.QUEUE


def took(key: str, args: Sequence[Any], answer: Any) -> list[Found]:
    """The member that a ZREM took after the loop had seen it; several clients may try, one gets the answer 1."""
    loop = known_loop()
    if loop is None or answer != 1 or len(args) != 3:
        return []
    member = commands.raw(args[2])
    if loop.seen.pop(member, None) != key:
        return []
    return [Found([Element(key, args[2], member, member)])]


def may_take(key: str, args: Sequence[Any]) -> bool:
    """Whether this ZREM may take a member as a job. One of a queue that is only moved from is remembered instead."""
    loop = known_loop()
    if loop is None or len(args) != 3 or loop.seen.get(member := commands.raw(args[2])) != key:
        return False
    if key not in loop.moved:
        return True
    if len(loop.moving) < SEEN_MAX:
        loop.moving[member] = None
    return False


def is_moving(element: bytes) -> bool:
    """Whether this push puts an element on that was taken only for that. Its context is still beside it."""
    loop = known_loop()
    if loop is None or element not in loop.moving:
        return False
    del loop.moving[element]
    return True


def deliveries(found: Iterable[Found]) -> list[Delivery]:
    return [Delivery(element) for each in found for element in each.elements if element is not None]


def lookups(waiting: Sequence[Delivery]) -> list[Command]:
    """Commands that read what lies beside the queue for the elements that were popped: context, fields of the job."""
    sides = [("GET", side.key) for each in waiting for side in each.sides()]
    about = [command for get in sides for command in (get, ("HGETALL", get[1]))]  # one of the two is of the wrong type
    return [*_context_reads(waiting), *about]


def _context_reads(waiting: Sequence[Delivery]) -> list[Command]:
    if settings().carrier == "off":
        return []
    return [command for each in waiting if each.carried is None for command in redis_context.reads(each.element.raw)]


def learn(waiting: Sequence[Delivery], answers: Sequence[Any]) -> list[Command]:
    """Puts the answers to `lookups` where they belong; commands that count what was delivered before."""
    asked = [each for each in waiting if each.carried is None] if settings().carrier != "off" else []
    _learn_fields(waiting, answers[redis_context.READS * len(asked) :])
    counting: list[Command] = []
    for index, each in enumerate(asked):
        each.carried = redis_context.found(answers[index * redis_context.READS :])
        if _comes_again(each):
            counting += redis_context.counts(each.element.raw)
    return counting


def _learn_fields(waiting: Sequence[Delivery], answers: Sequence[Any]) -> None:
    values = iter(zip(answers[::2], answers[1::2], strict=False))
    for each in waiting:
        for side in each.sides():
            value = next((value for value in next(values, ()) if value), None)
            if value is not None:
                each.known.update(identity.fields(replace(side, value=value), each.element.key))


def learn_tries(waiting: Sequence[Delivery], answers: Sequence[Any]) -> None:
    for each, answer in zip(filter(_comes_again, waiting), answers[::2], strict=False):
        each.tries = int(answer)


def _comes_again(delivery: Delivery) -> bool:
    """Lists: the element's context was taken before. Streams: by the kind of the command, each group reads all."""
    if delivery.element.message_id is not None:
        return delivery.element.redelivered and not delivery.element.attempt
    return delivery.carried is not None and delivery.carried.again
