"""What the commands of a job say of it: that it is settled, how it came out, whose it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.adapters.redis import commands
from otel_pipeline.worker.adapters.redis import groups as redis_groups
from otel_pipeline.worker.adapters.redis.consumer import known_loop
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.flow import touch
from otel_pipeline.worker.jobs import Job, job_end, open_jobs

SEARCHED_MAX: Final = 256
"""Open jobs among which the owner of an acknowledged message is looked for."""
NAMED_MAX: Final = 4096
"""Characters of an argument that may be the name of an element."""
_HELD: Final = re.compile(r"process|flight|running|active|working|lease|claim|progress|current", re.IGNORECASE)
_DONE: Final = Evidence(Source.ACK, Outcome.COMPLETED)

Arguments = Sequence[Any]


def step_to_named(name: str, args: Arguments) -> None:
    """Before a command of a loop that has several elements: the one that it names is the one at work."""
    loop = known_loop()
    if loop is None or loop.batch is None or name in commands.REMOVES:
        return
    if len(args) < 2:
        return
    values = [commands.text(each) for each in args[2:4] if isinstance(each, str | bytes) and len(each) <= NAMED_MAX]
    slot = loop.batch.named(commands.text(args[1]), values)
    if slot is not None:
        loop.batch.step(slot)


def observe(job: Job | None, name: str, args: Arguments, answer: Any) -> None:
    """A command of a job came back with its answer."""
    if isinstance(answer, Exception):
        return
    told = False
    if name in commands.REMOVES:
        _removed(job, name, args, answer)
    elif job is None:
        return
    elif name in commands.READS:
        _read(job, name, args, answer)
    elif name in commands.WRITES:
        told = _written(job, args, commands.WRITES[name])
    elif name in commands.PUSHES:
        told = _pushed(job, name, args)
    touch(busy=told)


def _read(job: Job, name: str, args: Arguments, answer: Any) -> None:
    if answer and outcomes.names_job(job, commands.text(args[1])):
        message = commands.small(commands.READS[name](args, answer))
        if message is not None:
            job.learn(message)


def _written(job: Job, args: Arguments, value: Callable[[Arguments], Any]) -> bool:
    """Whether it was a final status."""
    said = commands.small(value(args))
    return said is not None and _settled_by(job, outcomes.status_write(job, commands.text(args[1]), said))


def _pushed(job: Job, name: str, args: Arguments) -> bool:
    """Whether it was a final message."""
    told = False
    for each in commands.PUSHES[name](args):
        said = commands.small(each.value)
        if said is not None:
            told = _settled_by(job, outcomes.pushed(job, commands.text(args[1]), said)) or told
    return told


def _settled_by(job: Job, evidence: Evidence | None) -> bool:
    if evidence is None:
        return False
    job.observe(evidence)
    job.settle()
    return True


# -- settlement --------------------------------------------------------------------------------------------------------


def _removed(job: Job | None, name: str, args: Arguments, answer: Any) -> None:
    if not answer:
        return
    if name in {"XACK", "XACKDEL", "XDEL"}:
        _acknowledged(job, name, args)
    elif name in {"LREM", "ZREM", "SREM", "HDEL"}:
        values = args[3:4] if name == "LREM" else args[2:]
        for value in values:
            _settle(_owner(job, commands.raw(value)))
    elif job is not None:
        for key in map(commands.text, args[1:]):
            if _HELD.search(key) and outcomes.names_job(job, key):
                _settle(job)


def _acknowledged(job: Job | None, name: str, args: Arguments) -> None:
    key, ids = commands.text(args[1]), [commands.text(each) for each in args[2 if name == "XDEL" else 3 :]]
    if name == "XDEL" and job is not None and job.origin.group:
        return  # cleaning up after the XACK
    for each in ids:
        owner = _of_message(job, key, each)
        if name != "XDEL":
            redis_groups.acknowledged(key, commands.text(args[2]), in_time=owner is not None)
        _settle(owner)


def _of_message(job: Job | None, key: str, message_id: str) -> Job | None:
    if job is not None and job.origin.message_id == message_id:
        return job
    for other in list(open_jobs.values())[-SEARCHED_MAX:]:
        if other.origin.message_id == message_id and other.origin.destination == key:
            return other
    return None


def _owner(job: Job | None, value: bytes) -> Job | None:
    """The job whose element, or id, this is."""
    if job is not None and _is(job, value):
        return job
    for other in list(open_jobs.values())[-SEARCHED_MAX:]:
        if other.element == value:
            return other
    return None


def _is(job: Job, value: bytes) -> bool:
    return value in {job.element, job.id.encode()}


def _settle(job: Job | None) -> None:
    if job is None or job.over or job.origin.system != "redis":
        return
    job.observe(_DONE)
    job.settle()
    loop = known_loop()
    batch = loop.batch if loop is not None else None
    parked = batch is not None and any(slot.job is job and slot is not batch.current for slot in batch.slots)
    if (parked or job.left) and not job.children:
        job_end(job, end_ns=job.settled_ns)
