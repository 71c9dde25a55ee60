"""How far a host's clock is off, from what it said when it sent and when that arrived.

received - sent is the difference of the clocks plus the time under way, which is never negative: the least of a window
is the best estimate. The window is cut into ten parts, so that it slides without keeping each message.
"""

from __future__ import annotations

from typing import Final

from otel_pipeline.limits import GPU_SKEW_WINDOW_S

_PARTS: Final = 10
_PART_NS: Final = GPU_SKEW_WINDOW_S * 1_000_000_000 // _PARTS


class Offset:
    """Our clock minus the host's, in ns."""

    __slots__ = ("_parts", "_received_ns", "sent_ns")

    def __init__(self) -> None:
        self.sent_ns = 0
        """What the host's clock said in the message that came last; 0 before there was one."""
        self._received_ns = 0
        self._parts: dict[int, int] = {}

    def saw(self, sent_ns: int, received_ns: int) -> None:
        """A message; those from before the window, by our clock, change nothing."""
        if received_ns >= self._received_ns:
            self.sent_ns, self._received_ns = sent_ns, received_ns
        part = received_ns // _PART_NS
        newest = max(part, max(self._parts, default=part))
        if part > newest - _PARTS:
            difference = received_ns - sent_ns
            self._parts[part] = min(difference, self._parts.get(part, difference))
        self._parts = {each: least for each, least in self._parts.items() if each > newest - _PARTS}

    @property
    def estimate_ns(self) -> int | None:
        """The least delay of the window; None if nothing was seen."""
        return min(self._parts.values(), default=None)
