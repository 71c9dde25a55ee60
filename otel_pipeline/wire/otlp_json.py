"""OTLP's JSON mapping on top of protobuf's: ids are hex, enums are numbers, names are lowerCamelCase and nothing else."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format

from otel_pipeline.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline.wire.signal import Signal

ID_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
ENUM_KEYS: Final = frozenset({"kind", "code", "severityNumber", "aggregationTemporality"})


def encode(signal: Signal, request: bytes) -> str:
    """A serialized request as one line of OTLP JSON."""
    message = signal.value.request.FromString(request)
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(_walk(tree, _hex), ensure_ascii=False, separators=(",", ":"))


def decode(signal: Signal, body: bytes) -> bytes:
    """OTLP JSON as a serialized request. Raises WireError; its offset is known for a body that is no JSON."""
    try:
        tree = json.loads(body)
    except json.JSONDecodeError as error:
        raise WireError(f"no JSON: {error.msg}", error.pos) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"no JSON: {error}", getattr(error, "start", 0)) from None
    if not isinstance(tree, dict):
        raise WireError("no JSON object", 0)
    try:
        message = json_format.ParseDict(_walk(tree, _base64), signal.value.request(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise WireError(f"no OTLP JSON: {error}", 0) from None
    return bytes(message.SerializeToString())


def _walk(tree: Any, convert: Callable[[str, Any], Any]) -> Any:
    if isinstance(tree, dict):
        return {
            key: convert(key, value) if key in ID_KEYS or key in ENUM_KEYS else _walk(value, convert)
            for key, value in tree.items()
            if "_" not in key
        }
    if isinstance(tree, list):
        return [_walk(value, convert) for value in tree]
    return tree


def _hex(key: str, value: Any) -> Any:
    return base64.b64decode(value).hex() if key in ID_KEYS else value


def _base64(key: str, value: Any) -> Any:
    if value is None:
        return None
    if key in ENUM_KEYS:
        if isinstance(value, str) and not value.lstrip("-").isdigit():
            raise WireError(f"no OTLP JSON: {key} is {value!r}, a number is allowed", 0)
        return value
    try:
        return base64.b64encode(binascii.unhexlify(value)).decode()
    except (ValueError, TypeError):
        raise WireError(f"no OTLP JSON: {key} is {value!r}, hex digits are allowed", 0) from None


def decode_response(signal: Signal, body: bytes) -> bytes:
    """An Export response in JSON as a serialized one. Raises ValueError."""
    try:
        return bytes(json_format.Parse(body, signal.value.response(), ignore_unknown_fields=True).SerializeToString())
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error
