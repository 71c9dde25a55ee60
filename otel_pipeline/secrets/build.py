"""Puts finder, replacer and cleaner together from plain settings."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline.limits import REDACTION_KEYS_KEPT, SIEVE_KEYS_KEPT, SIEVE_UNIT_BYTES_MAX, SIEVE_UNITS_KEPT
from otel_pipeline.secrets import keys, layouts
from otel_pipeline.secrets.messages import Cleaner
from otel_pipeline.secrets.requests import RequestCleaner
from otel_pipeline.secrets.texts import Finder, Replacer
from otel_pipeline.wire.kernel import kernel as this_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from otel_pipeline.secrets.rules import Kind
    from otel_pipeline.wire.kernel import Kernel


PSEUDONYM_KEY_BYTES: Final = 32
VALUE_BYTES_MAX: Final = 32 * 1024
"""Unless configured otherwise: longer than any prompt or stack trace, shorter than an image."""


def request_cleaner(
    *,
    kinds: Collection[Kind],
    denied_keys: Collection[str],
    user_keys: Collection[str],
    hash_key: bytes,
    pseudonym_key: bytes,
    value_bytes_max: int,
    count: Callable[[str, int], None],
    kernel: Kernel | None = None,
    randomness: Callable[[int], bytes] = os.urandom,
) -> RequestCleaner:
    """A cleaner of requests, by default with the kernel of this process."""
    users = frozenset(map(keys.normal, user_keys))
    finder = Finder(kinds)
    cleaner = Cleaner(
        finder,
        Replacer(hash_key, pseudonym_key),
        keys.denial(denied_keys, frozenset(kinds)),
        lru_cache(REDACTION_KEYS_KEPT)(lambda key: keys.normal(key) in users),
        value_bytes_max=value_bytes_max,
        count=count,
    )
    sieve = _sieve(kernel or this_kernel(), finder, value_bytes_max, randomness)
    return RequestCleaner(finder, cleaner, sieve, count)


def _sieve(kernel: Kernel, finder: Finder, value_bytes_max: int, randomness: Callable[[int], bytes]) -> Any:
    def known(slots: int) -> Any:
        weights = [int.from_bytes(randomness(2)) >> 1 for _ in range(SIEVE_UNIT_BYTES_MAX + 16)]
        return kernel.known(slots, SIEVE_UNIT_BYTES_MAX, int.from_bytes(randomness(8)) | 1, weights)

    return kernel.sieve(
        layouts.table()[0],
        layouts.WIDTH,
        value_bytes_max,
        finder.in_run,
        finder.run_bytes_min,
        known(SIEVE_UNITS_KEPT),
        known(SIEVE_KEYS_KEPT),
    )
