"""Trace requests of a GPU generation worker, numbered, cheap to vary.

Theory: a request is built once with opentelemetry-proto and then patched in place. Everything that must differ between
two requests (ids, times, the hexadecimal ids inside two attributes) has a fixed width, so no length changes and one
request costs a handful of numpy calls whatever its size. The number of a span *is* its span id, scrambled by an odd
factor so that ids look random on the wire; multiplying by the inverse gives the number back, so no attribute is needed
for counting.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

SPANS_PER_REQUEST_MAX = 8192  # 3.8 MB: under the 4 MiB that gRPC servers accept by default.
SPANS_PER_JOB = 8  # One trace is one job: a root and its stages.
SPAN_MARKER = b"otel_pipeline.stage.name"  # Occurs once in each span and nowhere else: counting it counts spans.

_SCRAMBLE = 0x9E3779B97F4A7C15  # Odd, hence invertible modulo 2**64.
_UNSCRAMBLE = pow(_SCRAMBLE, -1, 2**64)
_JOB_SALT = 1 << 62  # Keeps the ids of jobs apart from those of spans.
_HEX_PAIRS = np.frombuffer(bytes(range(256)).hex().encode(), dtype=np.uint16)  # Two digits for each byte.
_LETTERS = bytes.maketrans(b"0123456789", b"ghijklmnop")
_LETTER_PAIRS = np.frombuffer(bytes(range(256)).hex().encode().translate(_LETTERS), dtype=np.uint16)
_ELEMENTS = {
    "trace_high": ">u8",
    "trace_low": ">u8",
    "span": ">u8",
    "parent": ">u8",
    "start": "<u8",
    "end": "<u8",
    "url": "V16",
    "job": "V16",
    "error": "V16",  # Letters only.
}
FAILING = ("some", "none", "all")
"""Which spans fail: every fiftieth, with HTTP's 503; none; all, each with an exception whose message stands alone."""
_TEMPLATE_START_NS = 1_700_000_000_000_000_000

_STAGES = ("job", "queue", "load_model", "encode_prompt", "inference", "decode", "upscale", "upload")
_MODELS = ("flux-1-dev", "sdxl-turbo", "wan-2.1-t2v", "svd-xt-1-1", "hunyuan-video")
_PROVIDERS = ("replicate", "fal", "runpod")

Numbers = npt.NDArray[np.uint64]
Octets = npt.NDArray[np.uint8]
Attribute = str | int


class SpanRequests:
    """Serialized requests with a fixed count of numbered spans each; not to be shared between threads."""

    def __init__(self, spans_per_request: int, worker: str = "worker-0", failing: str = "some") -> None:
        if not 1 <= spans_per_request <= SPANS_PER_REQUEST_MAX:
            raise ValueError(f"spans_per_request is {spans_per_request}, allowed are 1 to {SPANS_PER_REQUEST_MAX}")
        self.spans_per_request = spans_per_request
        self._position = np.arange(spans_per_request, dtype=np.uint64)
        self._root_position = self._position - self._position % np.uint64(SPANS_PER_JOB)
        self._child_index = np.flatnonzero(self._position != self._root_position)
        spans, roots, jobs = self._ids(0)
        if failing not in FAILING:
            raise ValueError(f"failing is {failing!r}, allowed are {FAILING}")
        self._storm = failing == "all"
        spans_built = [
            _span(i, *ids, failing) for i, ids in enumerate(zip(_raw(spans), _raw(roots), _raw(jobs), strict=True))
        ]
        template = _request(spans_built, worker).SerializeToString()
        self._octets = np.frombuffer(template, dtype=np.uint8).copy()
        self._fields = _locate(self._octets, spans_built)
        self._start_ns = self._fields["start"].read()
        self._end_ns = self._fields["end"].read()

    def request(self, first: int, now_ns: int) -> bytes:
        """The request with spans numbered from `first`, moved in time so that its first span starts at `now_ns`."""
        spans, roots, jobs = self._ids(first)
        fields = self._fields
        fields["trace_high"].write(jobs)
        fields["trace_low"].write(roots)
        fields["span"].write(spans)
        fields["parent"].write(roots[self._child_index])
        fields["url"].write(spans)
        fields["job"].write(jobs)
        if self._storm:
            fields["error"].write(spans)
        shift = np.uint64(now_ns - _TEMPLATE_START_NS)
        fields["start"].write(self._start_ns + shift)
        fields["end"].write(self._end_ns + shift)
        return self._octets.tobytes()

    def _ids(self, first: int) -> tuple[Numbers, Numbers, Numbers]:
        base = np.uint64(first)
        roots = self._root_position + base
        return _scrambled(self._position + base), _scrambled(roots), _scrambled(roots + np.uint64(_JOB_SALT))


def span_numbers(span_ids: Iterable[bytes]) -> Numbers:
    """The numbers behind span ids of 8 bytes; a foreign id comes out as an arbitrary, most likely huge, number."""
    ids = np.frombuffer(b"".join(span_ids), dtype=">u8").astype(np.uint64)
    return ids * np.uint64(_UNSCRAMBLE) - np.uint64(1)


def count_spans(body: bytes) -> int:
    """How many of this module's spans a serialized request holds, without parsing it."""
    return body.count(SPAN_MARKER)


def _scrambled(numbers: Numbers) -> Numbers:
    # One more than the number: OTLP calls the all-zero id invalid.
    return (numbers + np.uint64(1)) * np.uint64(_SCRAMBLE)


def _raw(ids: Numbers) -> list[bytes]:
    return [int(value).to_bytes(8, "big") for value in ids]


class _Field:
    """One field of every span that has it: 8 bytes, or 16 hexadecimal digits.

    The window is the request seen as overlapping elements, one from every byte, so that a write is one scatter.
    """

    def __init__(self, octets: Octets, positions: list[int], element: str, pairs: npt.NDArray[np.uint16]) -> None:
        self._pairs = pairs
        self._positions = np.array(positions, dtype=np.intp)
        self._element = np.dtype(element)
        count = len(octets) - self._element.itemsize + 1
        self._window = np.ndarray((count,), dtype=self._element, buffer=octets, strides=(1,))

    def read(self) -> Numbers:
        return self._window[self._positions].astype(np.uint64)

    def write(self, values: Numbers) -> None:
        if self._element.kind == "V":
            self._window[self._positions] = self._pairs[values.astype(">u8").view(np.uint8)].view(self._element)
        else:
            self._window[self._positions] = values


def _locate(octets: Octets, spans: list[Span]) -> dict[str, _Field]:
    """Where the fields lie: each value is searched for behind the one before it, in the order of the wire."""
    template = octets.tobytes()
    positions: dict[str, list[int]] = {name: [] for name in _ELEMENTS}
    cursor = 0
    for span in spans:
        values = {"trace_high": span.trace_id[:8], "trace_low": span.trace_id[8:], "span": span.span_id}
        if span.parent_span_id:
            values["parent"] = span.parent_span_id
        values["start"] = span.start_time_unix_nano.to_bytes(8, "little")
        values["end"] = span.end_time_unix_nano.to_bytes(8, "little")
        values["url"] = span.span_id.hex().encode()
        values["job"] = span.trace_id[:8].hex().encode()
        if span.events:
            values["error"] = span.span_id.hex().encode().translate(_LETTERS)
        for name, value in values.items():
            cursor = template.index(value, cursor)
            positions[name].append(cursor)
            cursor += len(value)
    pairs = {"error": _LETTER_PAIRS}
    return {
        name: _Field(octets, found, _ELEMENTS[name], pairs.get(name, _HEX_PAIRS))
        for name, found in positions.items()
        if found or name != "error"
    }


def _request(spans: list[Span], worker: str) -> ExportTraceServiceRequest:
    resource: dict[str, Attribute] = {
        "service.name": "image-generation-worker",
        "service.instance.id": worker,
        "service.version": "4.2.0",
        "host.name": "gpu-node-17.example.com",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": "1.45.2",
    }
    scope = InstrumentationScope(name="otel_pipeline.worker", version="1.0.0")
    scope_spans = ScopeSpans(scope=scope, spans=spans)
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=Resource(attributes=_attributes(resource)), scope_spans=[scope_spans])]
    )


def _span(index: int, span_id: bytes, root_id: bytes, job_id: bytes, failing: str) -> Span:
    stage = _STAGES[index % SPANS_PER_JOB]
    failed = failing == "all" or (failing == "some" and index % 50 == 49)
    start_ns = _TEMPLATE_START_NS + index * 1_000_000
    attributes: dict[str, Attribute] = {
        "http.request.method": "POST",
        "url.full": f"https://gpu-api.example.com/v1/outputs/{span_id.hex()}",
        "server.address": "gpu-api.example.com",
        "server.port": 443,
        "http.response.status_code": 503 if failed else 200,
        "network.protocol.version": "1.1",
        "gen_ai.provider.name": _PROVIDERS[index // SPANS_PER_JOB % len(_PROVIDERS)],
        "gen_ai.request.model": _MODELS[index // SPANS_PER_JOB % len(_MODELS)],
        SPAN_MARKER.decode(): stage,
        "otel_pipeline.job.id": job_id.hex(),
    }
    return Span(
        trace_id=job_id + root_id,
        span_id=span_id,
        parent_span_id=b"" if span_id == root_id else root_id,
        flags=0x101,
        name=stage,
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + (index % 97 + 3) * 10_000_000,
        attributes=_attributes(attributes),
        events=[_exception(span_id)] if failing == "all" else [],
        status=Status(code=Status.STATUS_CODE_ERROR) if failed else None,
    )


def _exception(span_id: bytes) -> Span.Event:
    """With a word of its own, which no rule for grouping takes for an id."""
    word = span_id.hex().encode().translate(_LETTERS).decode()
    told: dict[str, Attribute] = {
        "exception.type": "app.RenderError",
        "exception.message": f"the stage {word} broke in a way of its own",
    }
    return Span.Event(name="exception", time_unix_nano=_TEMPLATE_START_NS, attributes=_attributes(told))


def _attributes(values: dict[str, Attribute]) -> list[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]
