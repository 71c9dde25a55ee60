"""The wording of a message: what stays the same from one occurrence of a failure to the next.

Numbers, ids, addresses, dates and paths go. Quoted text is harder: `no attribute 'shape'` and `no attribute 'execute'`
are two failures, `prompt 'a cat'` and `prompt 'a dog'` are one. So a quoted name of the program stays - by its look, or
by the word before it - and so does what an answer in JSON says under `message`, `type` and the like.
"""

from __future__ import annotations

from typing import Final

import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline.limits import FINGERPRINT_LINES, FINGERPRINT_MESSAGE_CHARS_MAX, FINGERPRINT_WORDS

VARIABLE: Final = re2.compile(
    rb"""(?i)(?:[a-z][a-z0-9+.-]*://[^\s'"<>)\]]+"""  # URLs
    rb"|[\w.+-]+@[\w-]+\.[\w.-]+"  # mail addresses
    rb"""|\b[bur]'[^'\n]*'|\w'\w"""  # literals; an apostrophe
    rb"""|"[^"\n]*"|'(?:[^'\n]|'\w)*'|`[^`\n]*`|\x{201c}[^\x{201d}\n]*\x{201d}"""
    rb"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    rb"|\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?"
    rb"|0x[0-9a-f]+"
    rb"|\d{4}-\d\d-\d\d[t ]?[\d:.,]*z?"
    rb"|\b(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +\d{1,2} +[a-z]{3,9} +\d{2,4}"
    rb"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]* +\d{1,2}(?:,? +\d{4})?\b"
    rb"""|(?:[a-z]:)?(?:[\\/][\w.@~+%-]+)+[\\/]?(?:\?[^\s'"<>)\]]*)?"""  # paths
    rb"|\b[\w-]+\.(?:safetensors|ckpt|pth?|bin|gguf|onnx|png|jpe?g|webp|gif|mp4|webm|mov|wav|mp3|flac|json|yaml|py)\b"
    rb"|\b(?:[a-f]*\d[0-9a-f]{5,}|[0-9a-f]{5,}\d[0-9a-f]*)\b"  # hex
    rb"|\b(?:[a-z0-9]{8,}\d[a-z0-9]{4,}|[a-z0-9]{4,}\d[a-z0-9]{8,})\b"  # ids without separators
    rb"|\b[a-z][a-z0-9]*[_-][a-z0-9_-]*\d[a-z0-9_-]*"  # ids such as req_4f2a, pods such as web-58d5c7-svl82
    rb"|[-+]?\d[\d.,:x]*(?:e[-+]?\d+)?(?: ?(?:[kmgt]i?b|bytes?|ms|s|secs?|seconds?|mins?|minutes?|hours?|%))?\b"
    rb"|\b(?:[a-z0-9]{2,}\d[a-z0-9]{2,}\d[a-z0-9]{4,}|\d[a-z0-9]{2,}\d[a-z0-9]{6,})\b)"
)
"""Without groups that capture: with them RE2 takes its slow way."""
QUOTES: Final = frozenset(b"\"'`\xe2")
APOSTROPHE: Final = b"'"
NAMED: Final = re2.compile(
    rb"""(?i)(?:attribute|named|argument|name|from|module|key|column|relation|table|constraint|index|encoder|decoder|"""
    rb"codec|filter|function|method|field|parameter|option|operator|dtype|backend|symbol|command|operation|for|task|"
    rb"""type|class|variable|property|library)s?[ :=(\[]*$"""
)
"""Words that stand before a name of the program."""
SAID: Final = re2.compile(
    rb"""(?i)['"]?\b(?:message|msg|details?|error|reason|title|status|type|code|description)['"]?\s*[:=]\s*$"""
)
"""Keys of JSON under which the failure itself is told."""
WORD: Final = re2.compile(rb"^[A-Za-z_][\w.]*$")
IDENTIFIER: Final = re2.compile(rb"^[A-Za-z_]*(?:[A-Za-z]_+[A-Za-z]|[a-z][A-Z]|[A-Z]{2}[a-z])\w*$")
"""Two words in one, as programs write names."""
DIGITS_INSIDE: Final = re2.compile(rb"\d[A-Za-z]")
HTTP_PHRASE: Final = re2.compile(rb"^[45]\d\d [A-Z][\w -]*$")
PUNCTUATION: Final = "[](){}<>,.:;|=*+-/\\'\"!?#@%&^~_$`"
BEFORE_BYTES: Final = 40
"""So much before a quote is looked at."""


def normalised(message: str) -> str:
    """What stays of the first lines of a message."""
    lines = [line for line in message[:FINGERPRINT_MESSAGE_CHARS_MAX].splitlines() if line.strip()]
    text = "\n".join(lines[:FINGERPRINT_LINES])
    # Bytes: with text the binding of RE2 counts characters anew for each match.
    words = _kept(text.encode(errors="replace")).decode(errors="replace").split()
    return " ".join([word for word in words if word.strip(PUNCTUATION)][:FINGERPRINT_WORDS]).lower()


def _kept(text: bytes) -> bytes:
    pieces: list[bytes] = []
    end = 0
    for match in VARIABLE.finditer(text):
        begin, after = match.span()
        pieces += (text[end:begin], _stays(text, begin, after))
        end = after
    return b"".join((*pieces, text[end:]))


def _stays(text: bytes, begin: int, end: int) -> bytes:
    """What stays of something that varies."""
    if text[begin] in QUOTES:
        before = text[max(0, begin - BEFORE_BYTES) : begin]
        return b" " + _quoted(text[begin + 1 : end - 1], before, text[end:]) + b" "
    if text[begin + 1 : end].startswith(APOSTROPHE):
        if end - begin == len("n't"):
            return text[begin:end]
        name = text[begin + 2 : end - 1]
        return name if end - begin == len(text.strip()) and _name(name) else b" "
    return b" "


def _quoted(inside: bytes, before: bytes, behind: bytes) -> bytes:
    """What stays of a quoted text."""
    if inside[:1] in {b"4", b"5"} and HTTP_PHRASE.search(inside):
        return inside.replace(b" ", b"_")
    alone = not before.strip() and not behind.strip()
    if SAID.search(before) or (alone and b" " in inside):
        return _kept(inside)  # as deep as quotes nest in FINGERPRINT_MESSAGE_CHARS_MAX
    if _name(inside) and (alone or IDENTIFIER.search(inside) or NAMED.search(before)):
        return inside.strip(b"0123456789")
    return b""


def _name(text: bytes) -> bool:
    """Whether it may be a name in the program, not an id."""
    return WORD.search(text) is not None and DIGITS_INSIDE.search(text) is None
