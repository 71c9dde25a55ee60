"""A body that goes by in pieces, because the host streams it: it is counted, and kept if it is small and asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from otel_pipeline.worker.comfyui.answers import BODY_BYTES_MAX
from otel_pipeline.worker.comfyui.exchange import Exchange, counted, finished, received
from otel_pipeline.worker.guard import hook


@dataclass(eq=False, slots=True)
class Watch:
    exchange: Exchange
    keep: bool
    kept: bytearray = field(default_factory=bytearray)
    iterated: bool = False
    """The host iterates over the pieces."""
    over: bool = False


@hook("comfyui.watch")
def watch(exchange: Exchange, encoding: str | None = None) -> Watch | None:
    """None if nobody wants to know. A compressed body is counted only."""
    if not exchange.wants_body and not exchange.wants_size:
        return None
    return Watch(exchange, exchange.wants_body and encoding in {None, "", "identity"})


@hook("comfyui.chunk")
def chunk(watched: Watch, data: bytes) -> None:
    """The host read this piece."""
    counted(watched.exchange, len(data))
    if watched.keep:
        watched.kept += data
        if len(watched.kept) > BODY_BYTES_MAX:
            watched.keep = False
            watched.kept.clear()


@hook("comfyui.end")
def end(watched: Watch, error: BaseException | None = None, size: int = 0) -> None:
    """The body is over, or the host is done with it. `size` if pieces passed unseen. The first call counts."""
    if watched.over:
        return
    watched.over = True
    watched.exchange.size = max(watched.exchange.size, size)
    if watched.keep and watched.kept:
        received(watched.exchange, bytes(watched.kept))
    finished(watched.exchange, error if isinstance(error, Exception) else None)
