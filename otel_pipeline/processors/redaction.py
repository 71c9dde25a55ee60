"""Processor `redaction`: removes secrets from every string, before anything else reads them.

It works on the requests' bytes, so it is the first of its pipeline; `secrets/` has the rules and the rewriter. If a
request cannot be cleaned it is dropped and counted, see `Pipeline`; what was removed is counted by kind, never logged.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, SecretStr

from otel_pipeline.contracts import Context, Settings
from otel_pipeline.secrets.build import PSEUDONYM_KEY_BYTES, VALUE_BYTES_MAX, request_cleaner
from otel_pipeline.secrets.keys import USER_KEYS
from otel_pipeline.secrets.requests import RequestCleaner
from otel_pipeline.secrets.rules import KINDS, Kind

if TYPE_CHECKING:
    from otel_pipeline.wire.batch import Batch
    from otel_pipeline.wire.signal import Signal

log = logging.getLogger(__name__)


class RedactionProcessor:
    """Replaces secrets by `[redacted:kind]` in all strings of a request. Must be the first that runs."""

    class Config(Settings):
        """Settings of `redaction`."""

        disabled_kinds: frozenset[Kind] = frozenset()
        """Kinds that stay: private_key, jwt, api_key, authorization, cookie, url_credentials, url_signature,
        connection_string, password, one_time_code, email, card, phone."""
        denied_keys: tuple[Annotated[str, Field(min_length=1, max_length=255)], ...] = ()
        """More attribute keys whose values go, beside password, api_key, authorization and the like. Case does not
        count, and `-`, `_` and `.` are the same."""
        user_keys: tuple[Annotated[str, Field(min_length=1, max_length=255)], ...] = USER_KEYS
        """Attribute keys whose value is somebody's id: it is replaced by a pseudonym, the same for the same id.
        Empty: ids stay."""
        hash_key: SecretStr = SecretStr("")
        """With a key, a keyed hash of the secret stands in its mark, [redacted:kind:0123456789abcdef]: equal secrets
        are seen to be equal. Pseudonyms are made with it, too; without it with a key of this gateway's own, which it
        keeps in its data directory."""
        max_value_bytes: Annotated[int, Field(ge=256, le=4 * 1024 * 1024)] = VALUE_BYTES_MAX
        """A longer attribute value or log body is replaced by its beginning, its length and its SHA-256."""

    def __init__(self, config: Config, context: Context) -> None:
        removed = context.stats.redacted
        self._counters = {
            kind: removed.labels(context.component_id, kind) for kind in (*KINDS, "user", "cut", "undecided")
        }
        self._cleaner: RequestCleaner = request_cleaner(
            kinds=frozenset(KINDS) - config.disabled_kinds,
            denied_keys=config.denied_keys,
            user_keys=config.user_keys,
            hash_key=config.hash_key.get_secret_value().encode(),
            # One for all pipelines: traces and logs must agree on who somebody is.
            pseudonym_key=context.shared.get(f"{context.component_id} pseudonyms", lambda: _kept_key(context)),
            value_bytes_max=config.max_value_bytes,
            count=lambda kind, times: self._counters[kind].inc(times),
        )

    def rewrite(self, signal: Signal, request: bytes) -> bytes:
        """The request without its secrets."""
        return self._cleaner.rewrite(signal, request)

    def attributes(self, signal: Signal) -> frozenset[str]:  # noqa: ARG002  as in the contract
        """It reads no columns."""
        return frozenset()

    def process(self, batch: Batch) -> None:
        """All is done by then."""


def _kept_key(context: Context) -> bytes:
    """The key in the file, which is made at the first start; one for this run if it cannot be kept."""
    key = os.urandom(PSEUDONYM_KEY_BYTES)
    if context.common_directory is None:
        return key
    file = context.common_directory / "pseudonym.key"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
                new.write(key)
        except FileExistsError:
            kept = file.read_bytes()
            if len(kept) == PSEUDONYM_KEY_BYTES:
                return kept
            log.warning("%s holds no key: pseudonyms change at the next start", file)
    except OSError as error:
        log.warning("the key of pseudonyms cannot be kept: %s", error)
    return key
