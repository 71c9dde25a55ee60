"""Which failures are the same one: a short text that stays when numbers, ids, paths and line numbers change."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline.failures import frames
from otel_pipeline.limits import FINGERPRINT_FRAMES, FINGERPRINT_MESSAGE_CHARS_MAX, FINGERPRINT_WORDS

if TYPE_CHECKING:
    from otel_pipeline.failures.chain import Link

VERSION: Final = "1"
"""Part of every fingerprint: another way to make them must not look like new failures of the old kind."""

VARIABLE: Final = re2.compile(
    rb"""(?i)[a-z][a-z0-9+.-]*://[^\s'"<>)\]]+"""  # URLs
    rb"|[\w.+-]+@[\w-]+\.[\w.-]+"  # mail addresses
    rb"""|"[^"\n]*"|'[^'\n]*'|`[^`\n]*`|\x{201c}[^\x{201d}\n]*\x{201d}"""  # quoted values
    rb"|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    rb"|\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?"
    rb"|0x[0-9a-f]+"
    rb"|\d{4}-\d\d-\d\d[t ]?[\d:.,]*z?"
    rb"|(?:[a-z]:)?(?:[\\/][\w.@~+%-]+)+[\\/]?"  # paths
    rb"|\b[\w-]+\.(?:safetensors|ckpt|pth?|bin|gguf|onnx|png|jpe?g|webp|gif|mp4|webm|mov|wav|mp3|flac|json|yaml|py)\b"
    rb"|\b(?:[a-f]*\d[0-9a-f]{5,}|[0-9a-f]{5,}\d[0-9a-f]*)\b"  # hex
    rb"|\b[a-z]+[_-][a-z0-9_-]*\d[a-z0-9_-]*"  # ids such as req_4f2a
    rb"|[-+]?\d[\d.,:x]*(?:e[-+]?\d+)?(?: ?(?:[kmgt]i?b|ms|s|%))?\b"
)


def normalised(message: str) -> str:
    """The wording of a message: what varies from one occurrence to the next is left out."""
    line = next((line for line in message[:FINGERPRINT_MESSAGE_CHARS_MAX].splitlines() if line.strip()), "")
    # Bytes: with text the binding of RE2 counts characters anew for each match.
    words: bytes = VARIABLE.sub(lambda _: b" ", line.encode(errors="replace"))
    return " ".join(words.decode(errors="replace").split()[:FINGERPRINT_WORDS]).lower()


def fingerprint(name: str, links: list[Link], fallback: str) -> str:
    """The class, the type of the root cause, the wording of its message and the program's own innermost frames.

    The wording counts beside the frames: a worker's one `run` function is the innermost own frame of failures that
    have nothing else in common.
    """
    root = next((link for link in reversed(links) if link.kind and not link.kind.endswith("ExceptionGroup")), links[0])
    own = next((found for link in reversed(links) if (found := frames.own(link.trace, FINGERPRINT_FRAMES))), [])
    wording = normalised(root.message) or (normalised(fallback) if not own else "")
    text = "\n".join((VERSION, name, root.kind, wording, *own))
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
