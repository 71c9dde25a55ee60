"""Several elements in one answer: a job each, current while the program is at its element.

The program gets a list that equals the one it would have got. Each step of an iteration, each index and each `pop`
makes the job of that element current. A job in which something happened (a span, a thread, a write) is over when the
next one is stepped to; one in which nothing did is only parked, because programs often parse all elements before they
work on the first. A command that names an element steps to it as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, SupportsIndex

from opentelemetry import context

from otel_pipeline.worker import identity
from otel_pipeline.worker.adapters.redis import commands
from otel_pipeline.worker.adapters.redis.commands import Element, Found
from otel_pipeline.worker.adapters.redis.consumer import Delivery, known_loop, this_loop
from otel_pipeline.worker.evidence import Outcome, Verdict, verdict
from otel_pipeline.worker.flow import Flow, finish, popped
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import FINISHED, UNKNOWN, Job, enter, job_end, leave
from otel_pipeline.worker.tasks import handing

NAME_MAX: Final = 200
"""Characters of an element that may be a name of it."""
FIELDS_MAX: Final = 64
"""Fields of an argument that may name an element."""


@dataclass(eq=False, slots=True)
class Slot:
    """One element of the batch."""

    delivery: Delivery
    names: tuple[str, ...]
    job: Job | None = None
    parked_ns: int = 0
    item: Any = None
    """What the program sees of the element."""
    worked_on: bool = False


class Batch:
    """The jobs of one answer."""

    def __init__(self, waiting: Sequence[Delivery]) -> None:
        self.slots = [Slot(each, _names_of(each.element)) for each in waiting]
        self.current: Slot | None = None
        self._worked = False
        """Something happened in one of the jobs."""

    def step(self, slot: Slot) -> None:
        """The program is at this element now."""
        if slot is self.current and slot.job is not None and not slot.parked_ns:
            return
        self._park()
        if slot.job is None:
            slot.job = slot.delivery.start()
        elif slot.job.over:
            return
        else:
            slot.job.previous = context.get_current()
            enter(slot.job)
            popped(slot.job)
        slot.parked_ns = 0
        self.current = slot
        this_loop().batch = self

    def passed(self) -> None:
        """An iteration is through. If nothing was done in it, the work begins now, with the first element."""
        self._note()
        if not self._worked and len(self.slots) > 1 and self.current is self.slots[-1]:
            self.step(self.slots[0])

    def named(self, key: str, values: Sequence[str]) -> Slot | None:
        """The element that a command is about: its name is in the key, or is one of the values. The longest counts."""
        best: tuple[int, Slot | None] = (0, None)
        for slot in self.slots:
            for name in slot.names:
                if len(name) > best[0] and (name in values or _names(name, key)):
                    best = (len(name), slot)
        return best[1]

    def holding(self, arguments: Sequence[Any]) -> Slot | None:
        """The element that work is about: it is among the arguments, or what was made of it carries its name."""
        for each in arguments:
            for slot in self.slots:
                if each is slot.item or (isinstance(slot.item, tuple) and any(each is part for part in slot.item)):
                    return slot
        words = [word for each in arguments for word in _words(each)]
        return self.named("", words) if words else None

    def close(self, *, all_of_them: bool = True) -> None:
        """The loop asks for more: what is open is over, what was never stepped to is of unknown outcome."""
        self._park()
        # Work on all at once is seen as that on the first: what fails there is not known to have gone well elsewhere.
        trouble = any(_failed(slot.job) for slot in self.slots if slot.job is not None)
        for slot in self.slots:
            if slot.job is None and all_of_them:
                slot.job = slot.delivery.start()
                job_end(slot.job, default=UNKNOWN)
            elif slot.job is not None and not slot.job.over:
                _end(slot.job, slot.parked_ns, UNKNOWN if trouble and not slot.worked_on else FINISHED)

    def _note(self) -> None:
        slot = self.current
        if slot is not None and slot.job is not None and not slot.parked_ns:
            self._worked = self._worked or _was_worked_on(slot.job)

    def _park(self) -> None:
        self._note()
        slot, self.current = self.current, None
        if slot is None or slot.job is None or slot.job.over:
            return
        flow = _flow_of(slot.job)
        if slot.job.children and not slot.job.settled_ns and (flow is None or not flow.busy):
            slot.worked_on = (
                True  # by others; it is often acknowledged with the rest of the batch, when they are through
            )
        elif _was_worked_on(slot.job):
            finish(flow) if flow is not None else _end(slot.job, 0)
            return
        if flow is not None:
            flow.job = None
        leave(slot.job)
        slot.parked_ns = time.time_ns()

    def __del__(self) -> None:
        _dropped(self)


@hook("redis.batch_dropped")
def _dropped(batch: Batch) -> None:
    batch.close(all_of_them=False)


def _failed(job: Job) -> bool:
    return verdict(job.evidence, FINISHED).outcome is Outcome.FAILED


def _end(job: Job, parked_ns: int, default: Verdict = FINISHED) -> None:
    for each in job.said_by_children:
        job.observe(each)
    if job.children:
        job.left = True
        leave(job)
    else:
        ended_ns = max(job.settled_ns, parked_ns, job.activity_ns if parked_ns else 0)
        job_end(job, default=default, end_ns=ended_ns or None)


def _flow_of(job: Job) -> Flow | None:
    flow = job.flow() if job.flow is not None else None
    return flow if isinstance(flow, Flow) and flow.job is job else None


def _was_worked_on(job: Job) -> bool:
    flow = _flow_of(job)
    return bool(job.children or job.settled_ns or job.evidence or (flow is not None and flow.touched))


def _names_of(element: Element) -> tuple[str, ...]:
    words = {identity.job_id(element.message, identity.fields(element.message)) or ""}
    if element.message_id:
        words.add(element.message_id)
    elif len(element.raw) <= NAME_MAX:
        words.add(element.raw.decode("utf-8", "replace"))
    return tuple(words - {""})


def _words(argument: Any) -> list[str]:
    """Texts that an argument is, or that are its fields."""
    if isinstance(argument, str | bytes):
        return [commands.text(argument)] if len(argument) <= NAME_MAX else []
    if isinstance(argument, dict):
        fields = list(argument.values())[:FIELDS_MAX]
    else:
        fields = list(getattr(argument, "__dict__", {}).values())[:FIELDS_MAX]
    return [commands.text(each) for each in fields if isinstance(each, str | bytes) and len(each) <= NAME_MAX]


def _names(name: str, key: str) -> bool:
    """Whether the key has the name in it, as a whole: `job:1` is not of job 12."""
    at = key.find(name)
    end = at + len(name)
    return at >= 0 and not (key[at - 1 : at].isalnum() or key[end : end + 1].isalnum())


class Elements(list[Any]):
    """The list of a batch, as the program sees it."""

    __slots__ = ("_batch", "_of")

    def __init__(self, items: Sequence[Any], batch: Batch, of: dict[int, Slot]) -> None:
        super().__init__(items)
        self._batch, self._of = batch, of

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            _step(self._batch, self._of.get(id(item)))
            yield item
        _passed(self._batch)

    def __getitem__(self, index: Any) -> Any:
        item = super().__getitem__(index)
        if isinstance(index, slice):
            return Elements(item, self._batch, self._of)
        _step(self._batch, self._of.get(id(item)))
        return item

    def pop(self, index: SupportsIndex = -1) -> Any:
        item = super().pop(index)
        _step(self._batch, self._of.get(id(item)))
        return item

    def copy(self) -> list[Any]:
        return Elements(list.__getitem__(self, slice(None)), self._batch, self._of)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (list.__getitem__(self, slice(None)),)


@hook("redis.batch_step")
def _step(batch: Batch, slot: Slot | None) -> None:
    if slot is not None:
        batch.step(slot)


@hook("redis.batch_handed")
def _handed(arguments: list[Any]) -> None:
    loop = known_loop()
    slot = loop.batch.holding(arguments) if loop is not None and loop.batch is not None else None
    if slot is not None and loop is not None and loop.batch is not None:
        loop.batch.step(slot)


handing.append(_handed)


@hook("redis.batch_passed")
def _passed(batch: Batch) -> None:
    batch.passed()


def spread(found: Sequence[Found], waiting: Sequence[Delivery]) -> Batch:
    """Puts lists that step in the place of those in the answer."""
    batch = Batch(waiting)
    slots = {id(slot.delivery.element): slot for slot in batch.slots}
    for each in found:
        if each.items is None:
            continue
        of = {
            id(item): slots[id(element)]
            for item, element in zip(each.items, each.elements, strict=False)
            if element is not None
        }
        for item, element in zip(each.items, each.elements, strict=False):
            if element is not None:
                slots[id(element)].item = item
        each.put(Elements(each.items, batch, of))
    return batch
