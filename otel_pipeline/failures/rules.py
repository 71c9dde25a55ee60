"""A pack of rules, compiled once: every entry of every condition is one bit, a rule is a few masks over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import or_
from typing import TYPE_CHECKING, Any, Final

import re2  # type: ignore[import-untyped]  # has no stubs

from otel_pipeline.failures.evidence import URLS
from otel_pipeline.failures.frames import innermost
from otel_pipeline.failures.pack import PATTERN_FIELDS
from otel_pipeline.failures.patterns import FLAGS, matcher, remembered, type_pattern
from otel_pipeline.failures.wording import normalised
from otel_pipeline.limits import FAILURE_QUOTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_pipeline.failures.chain import Link
    from otel_pipeline.failures.evidence import Evidence
    from otel_pipeline.failures.pack import Condition, Pack, Rule

GRPC: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
CODE: Final = r"(4(?:0\d|1[0-8]|2[1-9]|31|51|99)|5(?:0[0-8]|1[01]|2[0-9]|30|98|99))"
"""An HTTP status, not any number of three digits: a width of 512 is none."""
HTTP_IN_TEXT: Final = re2.compile(
    r"(?i)(?:\b(?:status(?:[ _-]?code)?|error code|http(?:/[\d.]+)?(?: status| error)?|code|responded with|returned)"
    r"['\"\]]*\s*(?:is|=|:|of)?\s*['\"(\[]?([45]\d\d)\b"
    rf"|(?:^[(\[]?|['\"]|(?:client|server) error '){CODE}(?:['\")\]]|\b[ :,.\n])|[(\[]{CODE}[)\]]"
    r"|\b(?:failed|failure|error|request|response|fetch|got|server)\b[^\d\n]{0,40}[: ]"
    rf"{CODE}(?:$|[:,.;)\]}}\n]| [{{\"'<]))"
)
TYPE_IN_TEXT: Final = re2.compile(
    r"(?m)^([A-Z]\w*(?:Error|Exception|Timeout)):? "
    r"|\b((?:[A-Za-z_]\w*(?:\.|::))+[A-Z]\w*(?:Error|Exception|Timeout|Exceeded|Exhausted|Unavailable|Closed|Denied))\b"
    r"|\bCaused by:? ([A-Z]\w*(?:Error|Exception))\b"
)
"""Types that a message quotes: of what a wrapper wraps, or of the failure itself where a log line is all there is."""
HTTP_BEFORE: Final = re2.compile(r"(?i)\b([45]\d\d) (?:client|server) error")
GRPC_IN_TEXT: Final = re2.compile(r"StatusCode\.([A-Z_]+)|rpc error: code = (\w+)|^\d+ ([A-Z_]+):")
HOST_IN_URL: Final = re2.compile(r"(?i)(?:https?|wss?)://(?:[^\s/@'\"]*@)?([^\s/:?#'\"]+)|host='([^']+)'")
URL_PATH: Final = re2.compile(r"(?i)\b((?:https?|wss?)://[^\s/'\"<>)\]?]+)[/?][^\s'\"<>)\]]*")
"""What was asked for says nothing about why it failed: /v1/moderations is no refusal."""
SPAN_ID: Final = re2.compile(r"\d+|\b[0-9a-fA-F-]{12,}\b")
NODE_SPAN: Final = re2.compile(r"^comfyui\.node[ .](\S+)")
HOST_KEYS: Final = ("server.address", "net.peer.name", "peer.service")
STATUS_KEYS: Final = ("http.response.status_code", "http.status_code")
NODE_KEYS: Final = ("comfyui.error.node.type", "comfyui.node.type")


@dataclass(frozen=True, slots=True)
class _Masks:
    """One condition: a bit of each of `all_of`, none of `none_of`."""

    all_of: tuple[int, ...]
    none_of: int

    def holds(self, bits: int) -> bool:
        return not bits & self.none_of and all(bits & mask for mask in self.all_of)


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: Rule
    when: tuple[_Masks, ...]
    unless: tuple[_Masks, ...]


class Rules:
    """Decides by the first rule that holds."""

    def __init__(self, pack: Pack) -> None:
        self._bits: dict[tuple[str, str], int] = {}
        families = {name: [self._masks(one) for one in conditions] for name, conditions in pack.families.items()}
        self._rules = [
            _Compiled(rule, tuple(map(self._masks, rule.when)), tuple(map(self._masks, rule.unless)))
            for rule in pack.rules
        ]
        self._by_bit = self._index()
        self._asked = sum(self._by_bit)
        self._families = [
            (1 << self._bit("family", name), _any_of(mask.all_of[0] for mask in masks), masks)
            for name, masks in families.items()
        ]
        self._fields = {name: remembered(matcher(self._patterns(name))) for name in (*PATTERN_FIELDS, "type")}
        self._fields |= {name: matcher(self._patterns(name)) for name in ("message", "stack")}

    def bits(self, known: Evidence, links: Iterable[Link]) -> int:
        """What holds for a failure, the exceptions of `links` taken together."""
        links = list(links)
        attributes = dict(known.attributes)
        kinds = [link.kind.lstrip("*") for link in links if link.kind]
        named = attributes.get("error.type", "")
        if named and named != "_OTHER" and not named.isdigit():
            kinds.append(named)
        message = "\n".join([*(link.message for link in links if link.message), known.status])
        hosts = _hosts(attributes, message)
        message = URL_PATH.sub(r"\1", message, FAILURE_QUOTES_MAX)
        fields = self._fields
        kinds += _quoted(TYPE_IN_TEXT, message)
        bits = fields["type"]("\n".join(kinds)) | fields["message"](message) | fields["stack"](known.stack)
        trace = next((link.trace for link in reversed(links) if link.trace), known.stack)
        bits |= fields["raised"](innermost(trace))
        bits |= fields["span"](known.span) | fields["node"](_node(attributes, known.span))
        bits |= fields["host"]("\n".join(hosts))
        bits |= fields["attribute"]("\n".join(f"{key}={value}" for key, value in known.attributes))
        status = http_status(attributes, message)
        for text in (status, f"{status[:1]}xx") if status else ():
            bits |= self._known("status", text)
        bits |= self._known("grpc", grpc_status(attributes, message))
        for bit, first, masks in self._families:
            if bits & first and any(mask.holds(bits) for mask in masks):
                bits |= bit
        return bits

    def decide(self, bits: int, only: str = "") -> Rule | None:
        """The first rule that holds, among those of one class if that is asked for."""
        places: set[int] = set()
        rest = bits & self._asked
        while rest:
            lowest = rest & -rest
            places |= self._by_bit[lowest]
            rest ^= lowest
        for place in sorted(places):
            one = self._rules[place]
            if only and one.rule.class_ != only:
                continue
            if any(mask.holds(bits) for mask in one.when) and not any(mask.holds(bits) for mask in one.unless):
                return one.rule
        return None

    def service(self, message: str) -> str:
        """The domain of the first host in a message that some rule knows: a provider's, not one of ours or a user's."""
        if "://" not in message and "host='" not in message:
            return ""
        known = (host for host in _quoted(HOST_IN_URL, message) if self._fields["host"](host))
        return ".".join(next(known, "").rsplit(".", 2)[-2:])

    def has(self, bits: int, family: str) -> bool:
        """Whether the failure has to do with a family."""
        return bool(bits & self._known("family", family))

    def _index(self) -> dict[int, set[int]]:
        """For each bit the rules that may hold because of it: a condition is found by its first mask."""
        index: dict[int, set[int]] = {}
        for place, one in enumerate(self._rules):
            for condition in one.when:
                rest = condition.all_of[0]
                while rest:
                    index.setdefault(rest & -rest, set()).add(place)
                    rest &= rest - 1
        return index

    def _known(self, field: str, entry: str) -> int:
        bit = self._bits.get((field, entry))
        return 0 if bit is None else 1 << bit

    def _bit(self, field: str, entry: str) -> int:
        return self._bits.setdefault((field, entry), len(self._bits))

    def _masks(self, condition: Condition) -> _Masks:
        all_of: list[int] = []
        none_of = 0
        for field, negative, entries in condition.given():
            mask = 0
            for entry in entries:
                mask |= 1 << self._bit(field, entry)
            if negative:
                none_of |= mask
            else:
                all_of.append(mask)
        return _Masks(tuple(all_of), none_of)

    def _patterns(self, field: str) -> dict[str, int]:
        """RE2 patterns of a field's entries, and their bits."""
        entries = {entry: bit for (name, entry), bit in self._bits.items() if name == field}
        return {type_pattern(text) if field == "type" else FLAGS + text: bit for text, bit in entries.items()}


def _any_of(masks: Iterable[int]) -> int:
    return reduce(or_, masks, 0)


def node(known: Evidence) -> str:
    """The type of the ComfyUI node that failed."""
    return _node(dict(known.attributes), known.span)


def whereabouts(known: Evidence) -> str:
    """What tells failures apart about which nothing else is known."""
    attributes = dict(known.attributes)
    codes = (http_status(attributes, known.status), grpc_status(attributes, known.status))
    told = normalised(known.status) or SPAN_ID.sub("", known.span)
    return " ".join((told, *codes, attributes.get("db.response.status_code", "")))


def http_status(attributes: Mapping[str, str], message: str) -> str:
    """The HTTP status: of the span if that is an error, else of the message, which may quote another answer's."""
    told = next((attributes[key] for key in STATUS_KEYS if key in attributes), "")
    if not told and (named := attributes.get("error.type", "")).isdigit():
        told = named
    if told >= "400":
        return told
    found = HTTP_BEFORE.search(message) or HTTP_IN_TEXT.search(message)
    return next(filter(None, found.groups())) if found else told


def grpc_status(attributes: Mapping[str, str], message: str) -> str:
    """The name of the gRPC status, or nothing."""
    number = attributes.get("rpc.grpc.status_code", "")
    if number.isdigit() and int(number) < len(GRPC):
        return GRPC[int(number)]
    named = attributes.get("rpc.response.status_code", "")
    if not named and (found := GRPC_IN_TEXT.search(message)):
        named = next(filter(None, found.groups()), "")
    snake = "".join(f"_{letter}" if letter.isupper() else letter for letter in named).upper().lstrip("_")
    return {"CANCELED": "CANCELLED"}.get(snake, snake) if named and not named.isupper() else named


def _hosts(attributes: Mapping[str, str], message: str) -> list[str]:
    """The peer by the attributes; what the message names only if these say nothing."""
    hosts = [attributes[key] for key in HOST_KEYS if key in attributes]
    hosts += [found[1] for key in URLS if (found := HOST_IN_URL.search(attributes.get(key, ""))) and found[1]]
    return hosts or _quoted(HOST_IN_URL, message)


def _quoted(pattern: Any, message: str) -> list[str]:
    """The first texts that one of a pattern's groups finds."""
    return [next(filter(None, found.groups())) for found in islice(pattern.finditer(message), FAILURE_QUOTES_MAX)]


def _node(attributes: Mapping[str, str], span: str) -> str:
    """The type of the ComfyUI node that failed."""
    found = NODE_SPAN.match(span)
    return next((attributes[key] for key in NODE_KEYS if key in attributes), found[1] if found else "")
