"""OTLP's JSON mapping on top of protobuf's: ids are hex, enums are numbers, names are lowerCamelCase only."""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from otel_pipeline.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from otel_pipeline.wire.signal import Signal

ID_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
ID_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
NUMBER: Final = re.compile(r"-?[0-9]+")
SHAPE_ERRORS: Final = (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError)
"""What protobuf's parser raises for JSON that is something else."""
REASON_CHARS_MAX: Final = 200
"""Of what protobuf's parser says: it quotes values of any length."""


def encode(signal: Signal, request: bytes) -> str:
    """A serialized request as one line of OTLP JSON. Raises WireError if it is none."""
    try:
        message = signal.value.request.FromString(request)
    except DecodeError:
        raise WireError("no protobuf message", 0) from None
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)
    return json.dumps(_with_hex_ids(tree), ensure_ascii=False, separators=(",", ":"))


def decode(signal: Signal, body: bytes) -> bytes:
    """OTLP JSON as a serialized request. Raises WireError; its offset is known for a body that is no JSON."""
    message: Any = signal.value.request()
    tree = _tree(body)
    try:
        known = _known(tree, message.DESCRIPTOR)
        return bytes(json_format.ParseDict(known, message, ignore_unknown_fields=True).SerializeToString())
    except SHAPE_ERRORS as error:
        raise WireError(f"no OTLP JSON: {str(error)[:REASON_CHARS_MAX]}", 0) from None


def decode_response(signal: Signal, body: bytes) -> bytes:
    """An Export response in JSON as a serialized one. Raises WireError."""
    message = signal.value.response()
    tree = _tree(body)
    try:
        return bytes(json_format.ParseDict(tree, message, ignore_unknown_fields=True).SerializeToString())
    except SHAPE_ERRORS as error:
        raise WireError(f"no response: {str(error)[:REASON_CHARS_MAX]}", 0) from None


def _tree(body: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(body)
    except json.JSONDecodeError as error:
        before = error.doc[: error.pos].encode(errors="surrogatepass")
        raise WireError(f"no JSON: {error.msg}", len(before)) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, nested too deep
        raise WireError(f"no JSON: {error}"[:REASON_CHARS_MAX], getattr(error, "start", 0)) from None
    if not isinstance(tree, dict):
        raise WireError("no JSON object", 0)
    return tree


def _with_hex_ids(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {
            key: base64.b64decode(value).hex() if key in ID_KEYS else _with_hex_ids(value)
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [_with_hex_ids(value) for value in tree]
    return tree


def _known(tree: Any, descriptor: Descriptor) -> Any:
    """What OTLP knows of an object, as protobuf's parser wants it; that would take other names, too."""
    if not isinstance(tree, dict):
        return tree  # the parser says what is wrong with it
    fields = _fields(descriptor)
    return {key: _value(fields[key], value) for key, value in tree.items() if key in fields}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_value(field, one) for one in value]
    if field.message_type is not None:
        return _known(value, field.message_type)
    if field.enum_type is not None:
        return _number(field, value)
    return _base64(field, value) if field.name in ID_FIELDS else value


def _number(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and not NUMBER.fullmatch(value)):
        raise ValueError(f"{field.camelcase_name} is no number; enums are numbers in OTLP")
    return value


def _base64(field: FieldDescriptor, value: Any) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(value)).decode()
    except (ValueError, TypeError):
        raise ValueError(f"{field.camelcase_name} is no string of hex digits") from None


@cache
def _fields(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    return dict(descriptor.fields_by_camelcase_name)
