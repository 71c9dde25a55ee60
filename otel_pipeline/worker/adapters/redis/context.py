"""The keys beside a queue that hold the context of its elements, so that payloads stay as they are.

    otelp:ctx:{hash}   list: one value for each equal element that waits
    otelp:last:{hash}  list: the values that went with its deliveries, the last first, for when an element comes again
    otelp:try:{hash}   how often it came again

`hash` is that of the element's bytes, in braces so that a cluster keeps the three together. All of them expire.

Reading and writing costs one round trip on the program's own client, silently. A server that refuses (no permission, no
connection) is left alone for a while, so that a worker never waits twice for a server that is away.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.messages import KEY_PREFIX, element_key
from otel_pipeline.worker.quiet import Silence
from otel_pipeline.worker.settings import settings

EQUAL_MAX: Final = 100
"""Contexts kept for equal elements: a queue that never drains must not grow a second one beside it."""
BACKOFF_S: Final = 60.0
"""How long a server that refused is left alone."""
FIELD: Final = "otelp"
"""The field of a JSON object that carries the context, if the operator chose that."""
_LAST: Final = KEY_PREFIX.removesuffix("ctx:") + "last:"
_TRIES: Final = KEY_PREFIX.removesuffix("ctx:") + "try:"
_MARK: Final = b',"' + FIELD.encode() + b'":{'

Command = tuple[Any, ...]
_encoder: Final = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Carried:
    """What came with an element."""

    headers: Mapping[str, str]
    sent_ms: int = 0
    attempt: int = 1
    again: bool = False
    """It was delivered before."""


def encode(headers: Mapping[str, str], attempt: int) -> str:
    return _encoder.encode({"h": dict(headers), "t": int(time.time() * 1000), "a": attempt})


def decode(value: Any, *, again: bool = False) -> Carried | None:
    try:
        known = json.loads(value)
        return Carried(
            {str(name): str(each) for name, each in known["h"].items()}, int(known["t"]), int(known["a"]), again
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _keys(element: bytes) -> tuple[str, str, str]:
    tag = f"{{{element_key(element).removeprefix(KEY_PREFIX)}}}"
    return f"{KEY_PREFIX}{tag}", f"{_LAST}{tag}", f"{_TRIES}{tag}"


def writes(element: bytes, value: str) -> list[Command]:
    """Commands that put a context beside an element that is about to be pushed."""
    ctx, last, tries = _keys(element)
    return [
        ("LPUSH", ctx, value),
        ("LTRIM", ctx, 0, EQUAL_MAX - 1),
        ("EXPIRE", ctx, int(settings().context_ttl_s)),
        ("DEL", last, tries),
    ]


READS: Final = 3
"""Commands that `reads` makes for an element."""


def reads(element: bytes) -> list[Command]:
    """Commands that take the context of an element that was popped.

    `last` is not trimmed: a push deletes it, so it is no longer than `ctx` was, and each command costs 10 us.
    """
    ctx, last, _ = _keys(element)
    ttl = int(settings().context_ttl_s)
    return [("RPOPLPUSH", ctx, last), ("LINDEX", last, 0), ("EXPIRE", last, ttl)]


def counts(element: bytes) -> list[Command]:
    """Commands that count one more delivery of the element."""
    tries = _keys(element)[2]
    return [("INCR", tries), ("EXPIRE", tries, int(settings().context_ttl_s))]


def found(answers: Sequence[Any]) -> Carried | None:
    """What the answers to `reads` say of an element."""
    taken, last = answers[0], answers[1]
    return decode(taken) if taken is not None else decode(last, again=True) if last is not None else None


# -- in the payload, if the operator chose that ------------------------------------------------------------------------


def put_in(element: bytes, value: str) -> bytes | None:
    """The JSON object with a field more, at its end, so that it can be cut off again; None if it is no such object."""
    end = element.rstrip()
    if not end.startswith(b"{") or not end.endswith(b"}") or _MARK in element or len(end.strip(b"{} \r\n\t")) == 0:
        return None
    try:
        json.loads(element)
    except ValueError:
        return None
    return end[:-1] + b',"' + FIELD.encode() + b'":' + value.encode() + end[-1:] + element[len(end) :]


def take_out(element: bytes) -> tuple[bytes, Carried] | None:
    """The element as it was, and what it carried."""
    at = element.rfind(_MARK)
    if at < 0:
        return None
    end = element.rstrip()
    carried = decode(end[at + len(_MARK) - 1 : -1])
    return (element[:at] + b"}" + element[len(end) :], carried) if carried is not None else None


def taken_out(answer: Any, carried: dict[bytes, Carried]) -> Any:
    """The answer with the elements as they were; what they carried, by element."""
    if isinstance(answer, list):
        return [taken_out(each, carried) for each in answer]
    if isinstance(answer, tuple):
        return tuple(taken_out(each, carried) for each in answer)
    if not isinstance(answer, str | bytes):
        return answer
    found = take_out(answer.encode("utf-8", "surrogateescape") if isinstance(answer, str) else answer)
    if found is None:
        return answer
    carried[found[0]] = found[1]
    return found[0].decode("utf-8", "surrogateescape") if isinstance(answer, str) else found[0]


# -- round trips -------------------------------------------------------------------------------------------------------

REFUSED_MAX: Final = 64
"""Servers that are remembered for having refused."""
_refused: Final[dict[int, float]] = {}
"""Until when a server is left alone, by the identity of its connection pool; not all of them can be held weakly."""


def side_client(client: Any) -> Any:
    """A client that commands of ours can run on, for a client or a pipeline of the program."""
    return getattr(client, "cluster_client", None) or getattr(client, "_client", None) or client


def _pool(client: Any) -> int:
    return id(getattr(client, "connection_pool", None) or getattr(client, "nodes_manager", None) or client)


def answering(client: Any) -> bool:
    return not _refused or _refused.get(_pool(client), 0.0) < time.monotonic()


@hook("redis.refused")
def _leave_alone(client: Any) -> None:
    while len(_refused) >= REFUSED_MAX:
        del _refused[next(iter(_refused))]
    _refused[_pool(client)] = time.monotonic() + BACKOFF_S


def _judged(client: Any, answers: list[Any]) -> list[Any] | None:
    if not any(isinstance(answer, Exception) for answer in answers):
        return answers
    # A key beside the queue may be a string or a hash: both are asked for.
    wrong = [isinstance(each, Exception) and str(each).startswith("WRONGTYPE") for each in answers]
    answers = [None if is_wrong else each for each, is_wrong in zip(answers, wrong, strict=True)]
    if any(isinstance(answer, Exception) for answer in answers):
        _leave_alone(client)
        return None
    return answers


@hook("redis.pipeline")
def _pipeline(client: Any, commands: Sequence[Command]) -> Any:
    if not commands or not answering(client):
        return None
    pipeline = side_client(client).pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return pipeline


def exchange(client: Any, commands: Sequence[Command] | None) -> list[Any] | None:
    """One round trip; None if there is nothing to send, or if it failed. Raises nothing."""
    pipeline = _pipeline(client, commands) if commands else None
    if pipeline is None:
        return None
    try:
        with Silence():
            return _judged(client, pipeline.execute(raise_on_error=False))
    except Exception:  # noqa: BLE001  the program's own command will tell it
        _leave_alone(client)
        return None


async def exchange_async(client: Any, commands: Sequence[Command] | None) -> list[Any] | None:
    """The same for asyncio. A cancellation is passed on by the caller."""
    pipeline = _pipeline(client, commands) if commands else None
    if pipeline is None:
        return None
    try:
        with Silence():
            return _judged(client, await pipeline.execute(raise_on_error=False))
    except Exception:  # noqa: BLE001  as above
        _leave_alone(client)
        return None


def age_s(carried: Carried) -> float | None:
    """Seconds since it was sent, by the clocks of the two machines."""
    return max(0.0, time.time() - carried.sent_ms / 1000) if carried.sent_ms else None
