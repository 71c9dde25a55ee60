"""Warnings that repeat: the first of a kind is logged, the next ones are counted and told about once a minute."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

PERIOD_S: Final = 60.0
KINDS_MAX: Final = 100


class Quiet:
    """A logger for what could happen a thousand times a second. The kind of a message is its format string."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def warning(self, message: str, *args: object) -> None:
        """Log a warning, unless one of its kind was logged a moment ago."""
        self._say(self._log.warning, message, args)

    def error(self, message: str, *args: object) -> None:
        """The same for an error."""
        self._say(self._log.error, message, args)

    def exception(self, message: str, *args: object) -> None:
        """The same for an error with the exception under way."""
        self._say(self._log.exception, message, args)

    def _say(self, write: Callable[..., None], message: str, args: tuple[object, ...]) -> None:
        now = self._clock()
        until, held_back = self._kinds.get(message, (0.0, 0))
        if now < until:
            self._kinds[message] = (until, held_back + 1)
            return
        if len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()
        self._kinds[message] = (now + PERIOD_S, 0)
        write(message + (f" ({held_back} more of these in the last minute)" if held_back else ""), *args)
