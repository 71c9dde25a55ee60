"""A made-up platform for the ledger: an hour of jobs on GPUs of two hosts and calls of others' models, in requests.

All of it is drawn from a seed. Each span knows by construction what it must cost by itself and which GPUs it claims;
what it costs there the oracle reckons (tests/support/ledger_bill.py). One host's clock is ahead.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_pipeline.wire.values import any_value
from tests.support.ledger_bill import HOUR_NS, MINUTE_NS, SECOND_NS, Bill, Done, Tariff, bill

INTERNAL, CLIENT = 1, 3
ERROR: Final = 2
AHEAD_NS: Final = 90 * SECOND_NS
DAY_NS: Final = 24 * HOUR_NS
MINUTES: Final = 70
PRICE_CHANGE: Final = 33
"""In this minute the H100 gets dearer."""
EARLY: Final = 50
"""In this minute spans in the future are sent: from then on all until now is booked, and what comes is late."""
API: Final = "api"
"""A host without GPUs."""
UNSAMPLED: Final = "platform.unsampled"
"""On spans of traces that head sampling leaves out."""
ANNOUNCED: Final = 2
"""Requests that are sent before all others: of samples, so that the gateway knows each host's GPUs."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """`samples` and `jobs`: minutes [first, last) in which it sends samples, and in which jobs begin. All are seen in
    the first minute: where only one is known, a span of its host that names none is taken to mean it.
    """

    uuid: str
    host: str
    name: str
    samples: Sequence[tuple[int, int]]
    jobs: Sequence[tuple[int, int]]


GPUS: Final = (
    Gpu("GPU-a0", "studio-a", "NVIDIA H100 80GB HBM3", [(0, MINUTES)], [(2, 58)]),
    # Not seen for four minutes, which are paid for.
    Gpu("GPU-a1", "studio-a", "NVIDIA H100 80GB HBM3", [(0, 1), (4, 24), (28, MINUTES)], [(8, 18), (28, 58)]),
    # Away for long enough to live twice.
    Gpu("GPU-b0", "studio-b", "NVIDIA L40S", [(0, 22), (34, MINUTES)], [(5, 16), (37, 56)]),
    # A worker that comes for some jobs; its spans outlive its samples, so its bill is rounded up to seconds.
    Gpu("GPU-b1", "studio-b", "NVIDIA L4", [(0, 1), (7, 9), (28, 31), (48, 52)], [(8, 11), (30, 33), (50, 54)]),
)
BY_HOST: Final = {host: [gpu.uuid for gpu in GPUS if gpu.host == host] for host in ("studio-a", "studio-b")}

PRICES: Final = """
currency: USD
defaults: false
prices:
  - {{id: h100-old, match: {{gpu: "*H100*"}}, basis: gpu_hour, price: 2.49, effective_to: "{change}"}}
  - {{id: h100-new, match: {{gpu: "*H100*"}}, basis: gpu_hour, price: 2.99, effective_from: "{change}"}}
  - {{id: l40s, match: {{gpu: NVIDIA L40S}}, basis: gpu_second, price: 0.000311, currency: EUR}}
  - {{id: l4, match: {{gpu: NVIDIA L4}}, basis: serverless_second, price: 0.0000777}}
  - {{id: veo, match: {{provider: gcp.gemini}}, basis: video_second, prices: {{720p: 0.05, 1080p: 0.0833}}}}
  - {{id: flux, match: {{provider: fal, model: flux}}, basis: image, price: 0.0031, failed: free}}
  - {{id: gpt, match: {{provider: openai}}, basis: million_tokens, prices: {{input: 1.25, output: 10}}}}
  - {{id: voice, match: {{provider: elevenlabs}}, basis: thousand_characters, price: 0.18}}
"""


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it is sent, and what it is to the bill. Its clock is the one of its host."""

    done: Done
    host: str
    name: str
    kind: int
    attributes: dict[str, Any]
    is_error: bool = False
    ends_before_start: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """`due_ns`: when it is sent, in the time of the made-up hour; `host`: whose sender; `spans`: those in it."""

    due_ns: int
    host: str
    body: bytes
    spans: Sequence[Span] = ()
    minutes: Sequence[tuple[str, int]] = ()

    @property
    def is_trace(self) -> bool:
        return bool(self.spans)

    @property
    def is_early(self) -> bool:
        return any(span.name == "early" for span in self.spans)


@dataclass(slots=True)
class World:
    """`requests` in the order in which they are sent first; `last`: those that come when all else is booked."""

    begin_ns: int
    requests: list[Request] = field(default_factory=list)
    last: list[Request] = field(default_factory=list)

    @property
    def everything(self) -> list[Request]:
        return [*self.requests, *self.last]

    @property
    def end_ns(self) -> int:
        """All but spans in the future is before it."""
        return self.begin_ns + (MINUTES + 3) * MINUTE_NS

    def prices(self) -> str:
        """The price file."""
        change = datetime.fromtimestamp((self.begin_ns + PRICE_CHANGE * MINUTE_NS) // SECOND_NS, UTC)
        return PRICES.format(change=change.isoformat())

    def tariffs(self) -> dict[str, Tariff]:
        """The same for the oracle."""
        change = self.begin_ns + PRICE_CHANGE * MINUTE_NS
        h100 = Tariff("USD", [(-(2**62), Fraction("2.49") / 3600), (change, Fraction("2.99") / 3600)])
        l40s = Tariff("EUR", [(-(2**62), Fraction("0.000311"))])
        l4 = Tariff("USD", [(-(2**62), Fraction("0.0000777"))], SECOND_NS)
        return {"GPU-a0": h100, "GPU-a1": h100, "GPU-b0": l40s, "GPU-b1": l4}

    def spans(self) -> list[Span]:
        return [span for request in self.everything for span in request.spans]

    def bill(self, until_ns: int, requests: Iterable[Request]) -> Bill:
        """What these requests cost."""
        told = list(requests)
        minutes: dict[str, set[int]] = defaultdict(set)
        for gpu, minute in (pair for request in told for pair in request.minutes):
            minutes[gpu].add(minute)
        return bill([span.done for request in told for span in request.spans], minutes, self.tariffs(), until_ns)


def world(seed: int, begin_ns: int, *, jobs_apart_s: float, late: float, last: float) -> World:
    """`begin_ns`: a full minute; `jobs_apart_s`: between two on a GPU; `late`, `last`: parts of the requests."""
    chance = random.Random(seed)
    made = World(begin_ns)
    jobs = _Jobs(chance, begin_ns)
    for gpu in GPUS:
        for first, until in gpu.jobs:
            at_s = first * 60.0
            while at_s < until * 60:
                jobs.add(gpu, begin_ns + int(at_s * SECOND_NS))
                at_s += chance.uniform(0.4, 1.6) * jobs_apart_s
    jobs.add_in_future()
    samples = _samples(chance, begin_ns)
    announced, rest = samples[:ANNOUNCED], samples[ANNOUNCED:]
    for request in [*rest, *_requests(chance, jobs.units)]:
        fate = chance.random()
        if request.is_early:
            made.requests.append(request)
        elif fate < last:
            made.last.append(request)
        elif fate < last + late:
            made.requests.append(_later(request, chance.randint(3 * MINUTE_NS, 30 * MINUTE_NS)))
        else:
            made.requests.append(request)
    made.requests.sort(key=lambda one: one.due_ns)
    made.requests[:0] = announced
    return made


def _later(request: Request, by_ns: int) -> Request:
    return Request(request.due_ns + by_ns, request.host, request.body, request.spans, request.minutes)


class _Jobs:
    """Draws jobs. `units`: when spans are sent, and those that must go together: two that tell the same call."""

    def __init__(self, chance: random.Random, begin_ns: int) -> None:
        self.units: list[tuple[int, list[Span]]] = []
        self._chance = chance
        self._begin_ns = begin_ns
        self._number = 0
        self._job = ""
        self._trace = 0
        self._more: dict[str, Any] = {}

    def add(self, gpu: Gpu, start_ns: int) -> None:
        """A job on a GPU, tried again if it fails, with calls of models in between."""
        self._number += 1
        job = self._job = f"job-{self._number}"
        attempts = 2 if self._chance.random() < 0.2 else 1
        for attempt in range(1, attempts + 1):
            self._trace = self._chance.getrandbits(128) | 1
            self._more = {UNSAMPLED: "yes"} if self._chance.random() < 0.3 else {}
            outcome = "completed" if attempt == attempts else "failed"
            start_ns = self._attempt(gpu, start_ns, (job, attempt), outcome) + self._ns(1, 20)

    def add_in_future(self) -> None:
        """By clocks that are wrong: nothing of it is booked in the test."""
        due_ns = self._begin_ns + EARLY * MINUTE_NS
        for ahead_ns in (4 * HOUR_NS, DAY_NS):
            start_ns = self._begin_ns + ahead_ns
            self._trace = self._chance.getrandbits(128) | 1
            told = {"otel_pipeline.stage.name": "load"}
            times = (start_ns, start_ns + SECOND_NS)
            one = self._span(GPUS[0].host, "early", times, 0, gpus=(GPUS[0].uuid,), attributes=told)
            self.units.append((due_ns, [one]))

    def _attempt(self, gpu: Gpu, start_ns: int, job: tuple[str, int], outcome: str) -> int:
        """When it ended. Its span is on the GPU's host, which may not say which GPU is meant, or elsewhere."""
        where = self._chance.choice(("here", "here", "unclear", "elsewhere"))
        host = API if where == "elsewhere" else gpu.host
        own = (gpu.uuid,) if where == "here" else ()
        root = self._id()
        at = start_ns + self._ns(0, 3)
        for _ in range(self._chance.randint(1, 3)):
            at = self._stage(gpu, at, root) + self._ns(0, 2)
            if self._chance.random() < 0.4:
                at = self._call(host, at, root)
        told = {
            "otel_pipeline.job.id": job[0],
            "otel_pipeline.job.attempt": job[1],
            "otel_pipeline.job.outcome": outcome,
            "enduser.pseudo.id": f"user-{self._number % 7}",
        }
        times = (start_ns, at + self._ns(0, 3))
        self._sent(self._span(host, "job", times, 0, key=root, gpus=own, job=job, attributes=told))
        return times[1]

    def _stage(self, gpu: Gpu, start_ns: int, parent: int) -> int:
        """When it ended. It may use both GPUs of the host; its nodes use one, and one may outlive it."""
        own = tuple(BY_HOST[gpu.host]) if self._chance.random() < 0.1 else (gpu.uuid,)
        key = self._id()
        at = start_ns + self._ns(0, 4)
        for _ in range(self._chance.randint(0, 3)):
            at = self._node(gpu, at, key) + self._ns(0, 1)
        end_ns = at + (self._ns(0, 6) if self._chance.random() < 0.9 else -self._ns(0, 2))
        broken = self._chance.random() < 0.05
        told = {"otel_pipeline.stage.name": self._chance.choice(("load", "sample", "decode"))}
        if self._chance.random() < 0.2:
            self._sent(self._span(API, "SELECT", (start_ns, start_ns + self._ns(0, 1)), key, kind=CLIENT))
        times = (start_ns, max(end_ns, start_ns + 1))
        self._sent(self._span(gpu.host, "stage", times, parent, key=key, gpus=own, attributes=told, broken=broken))
        return max(end_ns, at)

    def _node(self, gpu: Gpu, start_ns: int, parent: int) -> int:
        """When it ended. Something that uses nothing, but says its job, may stand between it and its stage."""
        end_ns = start_ns + self._ns(1, 15)
        if self._chance.random() < 0.2:
            told = {"otel_pipeline.job.id": self._job}
            times = (start_ns, end_ns)
            between = self._span(gpu.host, "execute", times, parent, job=(self._job, 0), attributes=told)
            parent = between.done.key[1]
            self._sent(between)
        told = {"comfyui.node.type": self._chance.choice(("KSampler", "VAEDecode"))}
        broken = self._chance.random() < 0.03
        times = (start_ns, end_ns)
        node = self._span(gpu.host, "node", times, parent, gpus=(gpu.uuid,), attributes=told, broken=broken)
        self._sent(node)
        return end_ns

    def _call(self, host: str, start_ns: int, parent: int) -> int:
        """When a call of a model ended. A framework's span above it may tell the same once more."""
        end_ns = start_ns + self._ns(1, 9)
        provider, model, used, (currency, exact) = self._used()
        failed = provider == "fal" and self._chance.random() < 0.4
        nano = 0 if failed else round(exact * SECOND_NS)
        told = {"gen_ai.provider.name": provider, "gen_ai.request.model": model, **used}
        unit = []
        if self._chance.random() < 0.2:
            outer = self._span(API, "generate", (start_ns, end_ns), parent, attributes=told)
            unit, parent, host = [outer], outer.done.key[1], API
        times = (start_ns + 1, end_ns - 1)
        broken = self._chance.random() < 0.05
        call = self._span(
            host,
            "call",
            times,
            parent,
            kind=CLIENT,
            direct=(currency, nano),
            attributes=told,
            broken=broken,
            error=failed,
        )
        self._sent(*unit, call)
        return end_ns

    def _used(self) -> tuple[str, str, dict[str, Any], tuple[str, Fraction]]:
        """Provider, model, quantities, and what they cost."""
        chance, quantity = self._chance, "otel_pipeline.quantity."
        kind = chance.randrange(6)
        if kind == 0:
            seconds, tier = chance.randint(1, 32), chance.choice(("720p", "1080p"))
            price = Fraction("0.05" if tier == "720p" else "0.0833")
            used = {f"{quantity}video_seconds": seconds / 4, f"{quantity}resolution": tier}
            return "gcp.gemini", "veo-3.1", used, ("USD", price * seconds / 4)
        if kind == 1:
            images = chance.randint(1, 4)
            return "fal", "flux", {f"{quantity}images": images}, ("USD", images * Fraction("0.0031"))
        if kind == 2:
            read, written = chance.randint(1, 5000), chance.randint(1, 900)
            used = {"gen_ai.usage.input_tokens": read, "gen_ai.usage.output_tokens": written}
            return "openai", "gpt", used, ("USD", (read * Fraction("1.25") + written * 10) / 10**6)
        if kind == 3:
            letters = chance.randint(1, 900)
            return "elevenlabs", "eleven", {f"{quantity}characters": letters}, ("USD", letters * Fraction("0.00018"))
        if kind == 4:
            told = Fraction(chance.randint(1, 999_999), 10**7)
            used = {"gen_ai.usage.cost.amount": float(told), "gen_ai.usage.cost.currency": "EUR"}
            return "runway", "gen4", {**used, "gen_ai.usage.cost.source": "provider"}, ("EUR", told)
        return "nobody", "unknown", {f"{quantity}images": 1}, ("USD", Fraction(0))  # no price

    def _span(
        self,
        host: str,
        name: str,
        times: tuple[int, int],
        parent: int,
        *,
        key: int = 0,
        kind: int = INTERNAL,
        gpus: tuple[str, ...] = (),
        direct: tuple[str, int] | None = None,
        job: tuple[str, int] | None = None,
        attributes: dict[str, Any] | None = None,
        broken: bool = False,
        error: bool = False,
    ) -> Span:
        """By the clock of its host. One that ends before its start has no length for the bill."""
        ahead_ns = AHEAD_NS if host == "studio-b" else 0
        start, end = times[0] + ahead_ns, times[1] + ahead_ns
        more = {"hw.id": ",".join(gpus)} if gpus else {}
        done = Done((self._trace, key or self._id()), parent, start, start if broken else end, gpus, direct, job)
        return Span(done, host, name, kind, {**(attributes or {}), **more, **self._more}, error, broken)

    def _sent(self, *spans: Span) -> None:
        """As soon as the last of them ended."""
        self.units.append((max(span.done.end_ns for span in spans), list(spans)))

    def _id(self) -> int:
        return self._chance.getrandbits(64) | 1

    def _ns(self, low_s: float, high_s: float) -> int:
        return self._chance.randint(int(low_s * SECOND_NS), int(high_s * SECOND_NS))


# -- requests ----------------------------------------------------------------------------------------------------------


def _requests(chance: random.Random, units: Sequence[tuple[int, list[Span]]]) -> list[Request]:
    """Of each host what ended lately, some together, so that spans of a trace are in several."""
    by_host: dict[str, list[tuple[int, list[Span]]]] = defaultdict(list)
    for due_ns, unit in units:
        by_host[unit[0].host].append((due_ns, unit))
    found = []
    for host, own in sorted(by_host.items()):
        own.sort(key=lambda one: one[0])
        while own:
            size = chance.randint(1, 6)
            spans = [span for _, unit in own[:size] for span in unit]
            found.append(Request(own[:size][-1][0], host, _traces(host, spans), spans))
            del own[:size]
    return found


def _traces(host: str, spans: Sequence[Span]) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="host.id").value.string_value = host
    group.resource.attributes.add(key="service.name").value.string_value = f"worker-{host}"
    scope = group.scope_spans.add()
    for one in spans:
        trace, key = one.done.key
        span = scope.spans.add(
            trace_id=trace.to_bytes(16, "big"),
            span_id=key.to_bytes(8, "big"),
            parent_span_id=one.done.parent.to_bytes(8, "big") if one.done.parent else b"",
            name=one.name,
            kind=one.kind,  # type: ignore[arg-type]  # a number is what the enum is
            start_time_unix_nano=one.done.start_ns,
            end_time_unix_nano=one.done.start_ns - 3 * SECOND_NS if one.ends_before_start else one.done.end_ns,
        )
        if one.is_error:
            span.status.code = ERROR  # type: ignore[assignment]  # as above
        for name, value in one.attributes.items():
            span.attributes.add(key=name).value.CopyFrom(any_value(value))
    return request.SerializeToString()


def _samples(chance: random.Random, begin_ns: int) -> list[Request]:
    """A request for each host and minute, in the order of time; the first ones are of different hosts."""
    found = []
    for minute in range(MINUTES):
        for host in BY_HOST:
            ahead_ns = AHEAD_NS if host == "studio-b" else 0
            there = [g for g in GPUS if g.host == host and any(low <= minute < high for low, high in g.samples)]
            first_ns = begin_ns + minute * MINUTE_NS + ahead_ns
            times = [first_ns + second * SECOND_NS + chance.randint(0, 10**8) for second in range(0, 60, 10)]
            seen = [(gpu.uuid, at // MINUTE_NS) for gpu in there for at in times]
            if there:
                found.append(Request(times[-1], host, _metrics(host, there, times), (), sorted(set(seen))))
    firsts = [next(one for one in found if one.host == host) for host in BY_HOST]
    return [*firsts, *(one for one in found if one not in firsts)]


def _metrics(host: str, gpus: Sequence[Gpu], times: Sequence[int]) -> bytes:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="host.id").value.string_value = host
    metric = group.scope_metrics.add().metrics.add(name="hw.gpu.utilization", unit="1")
    for gpu in gpus:
        for at in times:
            point = metric.gauge.data_points.add(time_unix_nano=at, as_double=0.5)
            for name, value in (("hw.id", gpu.uuid), ("hw.name", gpu.name), ("hw.type", "gpu")):
                point.attributes.add(key=name).value.string_value = value
    return request.SerializeToString()
