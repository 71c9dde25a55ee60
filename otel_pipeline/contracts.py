"""What a receiver, a processor and an exporter are, and the laws each must obey.

A component is a class with a nested `Config` (what the operator writes) and a constructor `(config, context)`. It
lives in a file that carries its YAML name and has one row in `components.py`; a third party's processor needs no row:
it is found by an entry point in the group `otel_pipeline.processors`. `tests/contract` runs over all of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from otel_pipeline.event_loop import EventLoop
    from otel_pipeline.exposition.families import Exposition
    from otel_pipeline.outbox_state import ParkedEntry
    from otel_pipeline.stats import Stats
    from otel_pipeline.wire.batch import Batch
    from otel_pipeline.wire.signal import Signal


T = TypeVar("T")


class Settings(BaseModel):
    """Base of every `Config`: typed, frozen, an unknown key is a mistake. Give each field a description: it is the
    manual.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    without_effect: ClassVar[dict[str, str]] = {}
    """Keys of the Collector's component that are accepted and do nothing here, each with the reason; named in a
    warning.
    """


class Shared:
    """Objects that several components use, such as the traces' and the logs' half of one processor: the first that
    asks for a name makes it. For the constructors, and for the thread that calls them.
    """

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The object of this name."""
        if name not in self._made:
            self._made[name] = make()
        return cast("T", self._made[name])


@dataclass(frozen=True, slots=True)
class Context:
    """What the gateway hands to a component besides its own settings."""

    component_id: str
    """As in the configuration: type/name."""
    stats: Stats
    """Counters about the gateway itself, on port 8888."""
    exposition: Exposition
    """Metrics about the telemetry that passes, on port 8889."""
    loop: EventLoop
    """Where servers run and where the HTTP client lives."""
    clock: Callable[[], float] = field(default=time.time)
    """Seconds since 1970."""
    directory: Path | None = None
    """Where this component may keep files over a restart; it makes the directory. None: it has nowhere to."""
    common_directory: Path | None = None
    """The same for all pipelines in which this component stands."""
    signal: Signal | None = None
    """Of the pipeline that this processor stands in."""
    books: Mapping[str, Book] = field(default_factory=dict)
    """The books that the class's static method `books(config)` names: what `Batch.record` may be given records for."""
    shared: Shared = field(default_factory=Shared)
    """What this component has in common with others of the gateway."""


# -- at the door -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is in the outbox. `rejected` of its items are not, for the reason in `message` (OTLP's partial
    success).
    """

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Nothing was taken; the same request may pass after `delay_s`."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was taken, and never will be: the request is no OTLP."""

    reason: str


Verdict: TypeAlias = Accepted | RetryLater | Rejected


class Entrance(Protocol):
    """Where a receiver hands in requests of one signal. The verdict comes when the batch is durable, not before."""

    async def accept(self, body: bytes) -> Verdict:
        """Wait for the verdict, on the gateway's event loop."""
        ...


class Receiver(Protocol):
    """Takes telemetry in. Law: no OK before `Accepted`; a request that is refused is told why and whether to come
    again.
    """

    def start(self) -> None:
        """Listen; raises OSError with the address if that fails."""
        ...

    def stop(self, grace_s: float) -> None:
        """Take no more, let what is under way end within the grace. May be called twice."""
        ...


# -- on the way --------------------------------------------------------------------------------------------------------


class Processor(Protocol):
    """Reads and edits batches in columns. Laws: it never blocks, never raises for what is in a batch, keeps no
    reference to it (the tables are used again), and costs Python time per distinct value, not per row. One
    instance serves one pipeline and is called by one thread.
    """

    def attributes(self, signal: Signal) -> frozenset[str]:
        """The attribute keys it will read or set with `Batch.strings`, `.numbers`, `.set` ...; empty for a signal it
        ignores.
        """
        ...

    def process(self, batch: Batch) -> None:
        """Read columns, record edits, drop rows."""
        ...


class Rewriter(Protocol):
    """What a processor may be besides: one that changes requests before they are scanned. It is the first that runs.

    Law: what it cannot rewrite it does not return: it raises, and the request is dropped and counted.
    """

    def rewrite(self, signal: Signal, request: bytes) -> bytes:
        """The request as the other processors may see it; the same object if nothing changed."""
        ...


class Originator(Protocol):
    """What a processor may be besides: the origin of requests of its own, for telemetry that nobody sends.

    Law: it never blocks the event loop, which `process` runs on too; it ends when it is cancelled.
    """

    async def originate(self, entrance: Entrance) -> None:
        """Runs from before the receivers start until after they stop. What it hands in passes every processor of the
        pipeline, this one too, and counts as received from this component by the transport `internal`.
        """
        ...


class Parking(Protocol):
    """What one processor of one pipeline has parked. For the event loop alone."""

    def entries(self) -> Sequence[ParkedEntry]:
        """The oldest first; after a restart those from before it, too."""
        ...

    async def release(self, numbers: Sequence[int]) -> bool:
        """Hand these entries to the processor again, as batches with `released` set, and then to those behind it.

        False: not now, they stay parked.
        """
        ...


class Parker(Protocol):
    """What a processor may be besides: one that sets rows aside (`Batch.park`) until it knows enough of them.

    Law: it bounds what it parks, in bytes and in time, and releases at the bound whatever it knows by then. It never
    blocks the event loop; it ends when it is cancelled.
    """

    async def attend(self, parking: Parking) -> None:
        """Runs from before the receivers start until after they stop; what is parked then stays for the next start."""
        ...


class Book(Protocol):
    """Keeps what must sum, from the records that processed batches leave in the outbox (`Batch.record`). A record is
    committed together with its batch; a thread of the book's own applies it afterwards.

    Law: a record and the position behind it are kept in one transaction, so that each is applied exactly once; what
    is in a record never raises. Trouble with the store raises StoreError, and the same records come again.
    """

    name: str
    """Of the stream of records; a processor's class names it in its static method `books(config)`."""

    def apply(self, epoch: str, first: int, records: Sequence[bytes]) -> None:
        """Apply records numbered from `first` on, of the outbox of this identity; those before the position that is
        kept for it were applied already and are passed over.
        """
        ...

    def close(self) -> None:
        """Give up the store."""
        ...


class Tended(Protocol):
    """What a book may be besides: one with work to do while no records come."""

    def tend(self) -> None:
        """Called by the book's thread every few seconds when no records wait. Raises StoreError as `apply` does."""
        ...


# -- on the way out ----------------------------------------------------------------------------------------------------


class Exporter(Protocol):
    """Hands batches to one backend, called by its own sender thread alone.

    Law: when `deliver` returns, the backend has taken the batch; when it raises, the error says whether to try again.
    """

    @property
    def request_bytes_max(self) -> int:
        """How large a request the sender may merge; a single batch of more than twice the size is split."""
        ...

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Returns how many items the backend rejected (partial success). Raises Refused, TooLarge, Unavailable."""
        ...

    def close(self) -> None:
        """Give up connections and files. A `deliver` under way, in the sender's thread, ends soon after."""
        ...


class Scraped(Protocol):
    """An exporter that is asked: it answers HTTP GET on an endpoint of its own."""

    endpoint: str
    """host:port"""
    paths: dict[str, Callable[[str], tuple[str, bytes]]]
    """For each path a function from the Accept header to content type and body."""
