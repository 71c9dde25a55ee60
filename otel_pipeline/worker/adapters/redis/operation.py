"""One call of the program's to Redis, a command or a pipeline, from before it to after it. All steps are hooks.

begin     at the call: what it is; a pop ends the job before
opened    a push begins its span; its context is to be written to the side key
hushed    the command itself leaves no span where that would be noise
answered  what was popped; its side key is to be read
done      a pop's job begins, a push's span ends, the job hears what its commands say
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_pipeline import __version__
from otel_pipeline.worker import names
from otel_pipeline.worker.adapters.redis import batch as redis_batch
from otel_pipeline.worker.adapters.redis import commands as redis_commands
from otel_pipeline.worker.adapters.redis import consumer as redis_consumer
from otel_pipeline.worker.adapters.redis import observer as redis_observer
from otel_pipeline.worker.adapters.redis import producer as redis_producer
from otel_pipeline.worker.adapters.redis.commands import Found
from otel_pipeline.worker.adapters.redis.consumer import Delivery
from otel_pipeline.worker.adapters.redis.context import Carried, Command, taken_out
from otel_pipeline.worker.adapters.redis.keys import Purpose, purpose, site
from otel_pipeline.worker.adapters.redis.producer import Parcel
from otel_pipeline.worker.flow import error_name, this_flow
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import Job, current_job
from otel_pipeline.worker.quiet import Silence
from otel_pipeline.worker.settings import settings

PIPELINE_MAX: Final = 1000
"""Commands of one pipeline that are looked at."""

_TABLES: Final = (
    redis_commands.POPS,
    redis_commands.PUSHES,
    redis_commands.PEEKS,
    redis_commands.WRITES,
    redis_commands.READS,
    redis_commands.REMOVES,
)
_SEEN: Final = frozenset(name for table in _TABLES for name in table)
"""Commands that say something of a job or a queue."""
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA", "FCALL", "EVAL_RO", "EVALSHA_RO", "FCALL_RO"})

_errors: Final = metrics.get_meter("otel_pipeline.worker", __version__).create_counter(
    "redis.errors", unit="{error}", description="Redis commands that failed."
)


@dataclass(slots=True)
class Operation:
    """One call of the program."""

    client: Any
    commands: list[tuple[str, Sequence[Any]]]
    """Names in upper case, and arguments with the name at their head."""
    quiet: bool = False
    single: bool = True
    asked: list[str] = field(default_factory=list)
    """Queues that are popped from."""
    pops: list[int] = field(default_factory=list)
    expected: bool = False
    """What is popped are jobs."""
    parcels: list[Parcel] = field(default_factory=list)
    job: Job | None = None
    arguments: tuple[Any, ...] | None = None
    """Instead of the program's own, if context goes into the payload."""
    answers: list[Any] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    waiting: list[Delivery] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the program gets, in a box: a hook that failed returns None, and so may Redis."""

    value: Any


# -- begin -------------------------------------------------------------------------------------------------------------


@hook("redis.begin")
def begin(client: Any, args: tuple[Any, ...]) -> Operation | None:
    """For one command. None if there is nothing to do around it."""
    if not args or not is_instrumentation_enabled():
        return None
    name = args[0] if args[0] in _SEEN else redis_commands.text(args[0]).upper()
    if name not in _SEEN:
        return Operation(client, [], quiet=True) if _is_noise(name, args) else None
    return _classified(Operation(client, [(name, args)]))


@hook("redis.begin_pipeline")
def begin_pipeline(client: Any) -> Operation | None:
    if not is_instrumentation_enabled():
        return None
    given = [(redis_commands.text(args[0]).upper(), args) for args in _stack(client)[:PIPELINE_MAX] if args]
    if not given:
        return None
    operation = _classified(Operation(client, given, single=False))
    if operation is None or not operation.quiet:
        quiet = all(_is_noise(name, args) for name, args in given)
        operation = operation or (Operation(client, [], quiet=True, single=False) if quiet else None)
    return operation


def _stack(pipeline: Any) -> list[Sequence[Any]]:
    """The commands of a pipeline, wherever this version of redis-py keeps them."""
    strategy = getattr(pipeline, "_execution_strategy", None)
    kept: Any = getattr(strategy, "_command_queue", None)
    if kept is None:
        kept = getattr(pipeline, "command_stack", None)
    if kept is None:
        kept = getattr(pipeline, "_command_stack", ())
    return [each.args if hasattr(each, "args") else each[0] for each in kept]


def _is_noise(name: str, args: Sequence[Any]) -> bool:
    """Whether a command is to leave no span: outside of any trace, or about a framework's own keys."""
    if not trace.get_current_span().get_span_context().is_valid:
        return not settings().root_client_spans
    at = 3 if name in _SCRIPTS else 1
    return len(args) > at and isinstance(args[at], str | bytes) and _purpose(args[at]) is Purpose.FRAMEWORK


def _purpose(key: Any) -> Purpose:
    return purpose(redis_commands.text(key))


def _classified(operation: Operation) -> Operation | None:
    """Finds out what the commands do. None if nothing of it concerns jobs or queues."""
    commands, here = operation.commands, _Here()
    together = redis_commands.taken_together(commands) if len(commands) > 1 else frozenset()
    for index, (name, args) in enumerate(commands):
        if len(args) < 2:
            continue
        if name in redis_commands.POPS or index in together:
            pop = redis_commands.POPS.get(name, _first_key)
            _pops(operation, index, [redis_commands.text(key) for key in pop(args)])
        elif name in redis_commands.PEEKS:
            _peeks(operation, args, here)
        elif name == "ZREM" and redis_consumer.may_take(redis_commands.text(args[1]), args):
            _pops(operation, index, [redis_commands.text(args[1])])
    if operation.asked and not operation.expected:
        queues = [key for key in operation.asked if purpose(key) is not Purpose.FRAMEWORK]
        operation.expected = bool(queues) and redis_consumer.ask(queues, here.site)
    return _in_job(operation, here)


class _Here:
    """The line of the program, found when it is asked for."""

    def __init__(self) -> None:
        self._known: list[redis_consumer.Site | None] = []

    @property
    def site(self) -> redis_consumer.Site | None:
        if not self._known:
            self._known.append(site())
        return self._known[0]


def _first_key(args: Sequence[Any]) -> list[Any]:
    return [args[1]]


def _pops(operation: Operation, index: int, keys: list[str]) -> None:
    operation.quiet = True
    operation.pops.append(index)
    operation.asked += keys


def _peeks(operation: Operation, args: Sequence[Any], here: _Here) -> None:
    """A look at a sorted set that the loop takes jobs from is its next round."""
    key, loop = redis_commands.text(args[1]), redis_consumer.known_loop()
    if loop is not None and key in this_flow().loop_keys and redis_consumer.ask([key], here.site):
        operation.quiet = True


def _in_job(operation: Operation, here: _Here) -> Operation | None:
    """The rest is about the job that is open now, and about pushes."""
    for name, args in operation.commands:
        redis_observer.step_to_named(name, args)
    job = operation.job = current_job()
    trimmed = set() if operation.single else _trimmed(operation.commands)
    interesting = job is not None
    for index, (name, args) in enumerate(operation.commands):
        if name in redis_commands.PUSHES and len(args) > 2:
            interesting = _pushes(operation, index, here, trimmed) or interesting
        interesting = interesting or name in redis_commands.PEEKS or name in redis_commands.REMOVES
    if operation.single and not operation.quiet:
        operation.quiet = _is_noise(*operation.commands[0])
    elif not operation.quiet:
        operation.quiet = all(_is_noise(name, args) for name, args in operation.commands)
    return operation if interesting or operation.quiet else None


def _trimmed(commands: Sequence[tuple[str, Sequence[Any]]]) -> set[str]:
    return {redis_commands.text(args[1]) for name, args in commands if name == "LTRIM" and len(args) > 1}


def _pushes(operation: Operation, index: int, here: _Here, trimmed: set[str]) -> bool:
    name, args = operation.commands[index]
    key = redis_commands.text(args[1])
    if purpose(key) is Purpose.FRAMEWORK or here.site is None:
        operation.quiet = True
        return False
    if key in trimmed and purpose(key) is not Purpose.QUEUE:
        return False  # a list of the newest of something
    if len(args) in {3, 4} and redis_consumer.is_moving(redis_commands.raw(args[-1])):
        operation.quiet = True
        return False
    made = redis_producer.parcel(index, name, key, args, operation.job)
    if made is None:
        return False
    operation.quiet = True
    operation.parcels.append(made)
    return True


# -- around the command ------------------------------------------------------------------------------------------------


@hook("redis.opened")
def opened(operation: Operation) -> list[Command] | None:
    """Begins the spans of pushes; what to write to side keys."""
    if not operation.parcels:
        return None
    writing = redis_producer.start(operation.parcels)
    if operation.single:
        name, args = operation.commands[0]
        operation.arguments = redis_producer.injected(name, tuple(args), operation.parcels)
    return writing if operation.arguments is None else None


@hook("redis.hushed")
def hushed(operation: Operation | None) -> Silence | None:
    if operation is None or not operation.quiet:
        return None
    silence = Silence()
    silence.__enter__()
    return silence


@hook("redis.loud")
def loud(silence: Silence | None) -> None:
    if silence is not None:
        silence.__exit__()


@hook("redis.failed")
def failed(error: BaseException, operation: Operation | None) -> None:
    if isinstance(error, Exception) and type(error).__name__ not in {"WatchError", "NoScriptError"}:
        _errors.add(1, {names.ERROR_TYPE: error_name(error)})
    if operation is not None:
        redis_producer.end(operation.parcels, error)


# -- after it ----------------------------------------------------------------------------------------------------------


@hook("redis.answered")
def answered(operation: Operation, answer: Any) -> list[Command] | None:
    """Finds what was popped; what to read from side keys."""
    operation.answers = [answer] if operation.single else answer
    if not operation.pops or not operation.expected or not isinstance(operation.answers, list):
        return None
    carried: dict[bytes, Carried] = {}
    for index in operation.pops:
        if index >= len(operation.answers) or isinstance(operation.answers[index], Exception):
            continue
        if settings().carrier == "json":
            operation.answers[index] = taken_out(operation.answers[index], carried)
        operation.found += _found_in(operation, index)
    operation.waiting = redis_consumer.deliveries(operation.found)
    for each in operation.waiting:
        each.carried = carried.get(each.element.raw)
    return redis_consumer.lookups(operation.waiting)


def _found_in(operation: Operation, index: int) -> list[Found]:
    (name, args), answer = operation.commands[index], operation.answers[index]

    def put(new: Any) -> None:
        operation.answers[index] = new

    if name == "ZREM":
        return redis_consumer.took(redis_commands.text(args[1]), args, answer)
    if name in redis_commands.POPS:
        return redis_commands.popped(name, args, answer, put)
    return redis_commands.peeked(name, args, answer, put)


@hook("redis.looked_up")
def looked_up(answers: list[Any] | None, operation: Operation) -> list[Command] | None:
    return redis_consumer.learn(operation.waiting, answers or ())


@hook("redis.counted")
def counted(answers: list[Any] | None, operation: Operation) -> None:
    redis_consumer.learn_tries(operation.waiting, answers or ())


@hook("redis.done")
def done(operation: Operation) -> Answer | None:
    """Begins the jobs of what was popped, ends the spans of what was pushed, tells the job what its commands say."""
    redis_producer.end(operation.parcels)
    if not operation.answers:  # `answered` failed: the program gets what Redis said, as it is
        return None
    _observed(operation)
    if operation.pops:
        redis_consumer.count(operation.asked, empty=not any(operation.answers[index] for index in operation.pops))
    if len(operation.waiting) == 1:
        _begins(operation)
    elif operation.waiting:
        redis_batch.spread(operation.found, operation.waiting)
    return Answer(operation.answers[0] if operation.single else operation.answers)


def _begins(operation: Operation) -> None:
    delivery = operation.waiting[0]
    job, loop = delivery.start(), redis_consumer.this_loop()
    loop.taken = job if operation.commands[operation.pops[0]][0] == "ZREM" else None
    loop.carried = delivery.carried


def _observed(operation: Operation) -> None:
    own = {each.index for each in operation.parcels if each.again or each.moved}
    for index, (name, args) in enumerate(operation.commands):
        if index in operation.pops or index in own or index >= len(operation.answers) or len(args) < 2:
            continue
        answer = operation.answers[index]
        if name in redis_commands.PEEKS and not isinstance(answer, Exception):
            key = redis_commands.text(args[1])
            if redis_consumer.is_delayed_queue(key):
                redis_consumer.looked(key, redis_commands.members(args, answer))
        elif operation.job is not None or name in redis_commands.REMOVES:
            redis_observer.observe(operation.job, name, args, answer)
