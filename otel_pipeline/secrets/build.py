"""Puts finder, replacer and cleaner together from plain settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline.secrets import keys
from otel_pipeline.secrets.messages import Cleaner
from otel_pipeline.secrets.requests import RequestCleaner
from otel_pipeline.secrets.texts import Finder, Replacer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from otel_pipeline.secrets.rules import Kind


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
) -> RequestCleaner:
    """A cleaner of requests."""
    users = frozenset(map(keys.normal, user_keys))
    finder = Finder(kinds, keys.triggers([*denied_keys, *user_keys]))
    cleaner = Cleaner(
        finder,
        Replacer(hash_key, pseudonym_key),
        keys.denial(denied_keys, frozenset(kinds)),
        lambda key: bool(users) and keys.normal(key) in users,
        value_bytes_max=value_bytes_max,
        count=count,
    )
    return RequestCleaner(finder, cleaner, value_bytes_max, count)
