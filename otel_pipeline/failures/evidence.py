"""What is known of one failure, from a span, a log record or a line of JSON. Cut to a size at the door."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline.limits import FAILURE_MESSAGE_CHARS_MAX, FAILURE_NAME_CHARS_MAX, FAILURE_STACK_CHARS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXTS: Final = (
    "error.type",
    "rpc.response.status_code",
    "rpc.system",
    "rpc.service",
    "rpc.method",
    "db.system.name",
    "db.system",
    "db.response.status_code",
    "messaging.system",
    "messaging.operation.name",
    "messaging.operation.type",
    "messaging.operation",
    "server.address",
    "net.peer.name",
    "peer.service",
    "url.full",
    "http.url",
    "http.route",
    "gen_ai.provider.name",
    "gen_ai.system",
    "gen_ai.request.model",
    "comfyui.outcome",
    "comfyui.node.outcome",
    "comfyui.validation.error_type",
    "comfyui.error.node.type",
    "comfyui.node.type",
    "otel_pipeline.job.outcome",
    "process.command",
    "process.executable.name",
    "runpod.status",
    "flux.status",
)
"""Attributes with texts that the rules look at, old names among them: Python's contrib still sends those."""
NUMBERS: Final = ("http.response.status_code", "http.status_code", "rpc.grpc.status_code")
"""The same with numbers."""
URLS: Final = ("url.full", "http.url")
KEYS: Final = (*TEXTS, *NUMBERS)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One failure. Empty means unknown."""

    kind: str = ""
    """The exception's type."""
    message: str = ""
    stack: str = ""
    """The stack trace, with the chain of causes."""
    status: str = ""
    """Description of the span's status."""
    span: str = ""
    """Name of the span."""
    attributes: tuple[tuple[str, str], ...] = ()

    def digest(self) -> bytes:
        """A short key: equal evidence has an equal one."""
        pairs = (text for pair in self.attributes for text in pair)
        texts = "\0".join((self.kind, self.message, self.stack, self.status, self.span, *pairs))
        return blake2b(texts.encode(errors="surrogatepass"), digest_size=16).digest()


def evidence(  # noqa: PLR0917  one argument for each thing that can be known
    kind: str = "",
    message: str = "",
    stack: str = "",
    status: str = "",
    span: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> Evidence:
    """Evidence with every text cut to its bound: begin and end stay, for what matters stands there."""
    pairs = sorted((attributes or {}).items())
    return Evidence(
        cut(kind, FAILURE_NAME_CHARS_MAX),
        cut(message, FAILURE_MESSAGE_CHARS_MAX),
        cut(stack, FAILURE_STACK_CHARS_MAX),
        cut(status, FAILURE_MESSAGE_CHARS_MAX),
        cut(span, FAILURE_NAME_CHARS_MAX),
        tuple((key, _told(key, value)) for key, value in pairs if value is not None),
    )


def origin(url: str) -> str:
    """Scheme and host of an URL: the rest differs from request to request and tells nothing about failures."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.partition('/')[0].partition('?')[0].rpartition('@')[2]}" if mark else ""


def _told(key: str, value: object) -> str:
    text = cut(text_of(value), FAILURE_NAME_CHARS_MAX)
    return origin(text) if key in URLS else text


def cut(text: str, chars_max: int) -> str:
    """The begin and the end of a text that is too long."""
    if len(text) <= chars_max:
        return text
    return f"{text[: chars_max // 2]}\n{text[-(chars_max // 2) :]}"


def text_of(value: object) -> str:
    """An attribute's value as the rules see it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)
