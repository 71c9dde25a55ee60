"""JSON lines in, JSON lines out, without their secrets: what the command `redact` does."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline.errors import WireError
from otel_pipeline.limits import REDACTION_LINE_BYTES_MAX
from otel_pipeline.secrets.build import PSEUDONYM_KEY_BYTES, VALUE_BYTES_MAX, request_cleaner
from otel_pipeline.secrets.keys import USER_KEYS
from otel_pipeline.secrets.rules import KINDS
from otel_pipeline.secrets.texts import Finder, Replacer
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from otel_pipeline.secrets.requests import RequestCleaner

_TOP: Final = {b'"resourceSpans"': Signal.TRACES, b'"resourceMetrics"': Signal.METRICS, b'"resourceLogs"': Signal.LOGS}


def redacted(lines: Iterable[bytes], *, otlp: bool) -> Iterator[tuple[str, bool]]:
    """For each line that is not blank the line to write, and whether it was good; a bad one becomes an error."""
    one = _otlp(_cleaner()) if otlp else _text(Finder(), Replacer())
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > REDACTION_LINE_BYTES_MAX:
            yield _error(number, f"longer than {REDACTION_LINE_BYTES_MAX} bytes"), False
            continue
        try:
            yield one(line), True
        except WireError as error:
            yield _error(number, str(error).split("\n", 1)[0] if otlp else "no JSON"), False
        except (ValueError, RecursionError) as error:
            yield _error(number, "no JSON" if isinstance(error, json.JSONDecodeError) else _WANTED), False


_WANTED: Final = 'not of the form {"id": ..., "text": "..."}'


def _error(number: int, reason: str) -> str:
    return json.dumps({"line": number, "error": reason})


def _text(finder: Finder, replacer: Replacer) -> Callable[[bytes], str]:
    def clean(line: bytes) -> str:
        tree: Any = json.loads(line)
        if not isinstance(tree, dict) or "id" not in tree or not isinstance(tree.get("text"), str):
            raise ValueError(_WANTED)
        found = finder.find(tree["text"])
        removed = [{"kind": each.kind, "start": each.start, "end": each.end} for each in found]
        return json.dumps({"id": tree["id"], "text": replacer.without(tree["text"], found), "removed": removed})

    return clean


def _otlp(cleaner: RequestCleaner) -> Callable[[bytes], str]:
    def clean(line: bytes) -> str:
        signal = next((signal for key, signal in _TOP.items() if key in line), None)
        if signal is None:
            raise WireError("no OTLP JSON", 0)
        try:
            request = otlp_json.decode(signal, line)
        except WireError:
            raise WireError("no OTLP JSON", 0) from None  # its own text quotes values
        return otlp_json.encode(signal, cleaner.rewrite(signal, request))

    return clean


def _cleaner() -> RequestCleaner:
    return request_cleaner(
        kinds=KINDS,
        denied_keys=(),
        user_keys=USER_KEYS,
        hash_key=b"",
        pseudonym_key=os.urandom(PSEUDONYM_KEY_BYTES),
        value_bytes_max=VALUE_BYTES_MAX,
        count=lambda _kind, _times: None,
    )
