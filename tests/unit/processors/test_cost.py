"""The processor `cost`: what stands on spans, what is counted, what is left for the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import ValidationError

from otel_pipeline.contracts import Context
from otel_pipeline.errors import ConfigError
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.ledger import spans
from otel_pipeline.ledger.marks import INCLUSIVE, WRITTEN
from otel_pipeline.ledger.offers import Offers
from otel_pipeline.ledger.records import VERDICT, Presence, Spans, decode
from otel_pipeline.processors.cost import OTHER_KEYS, SHOWN, TOLD_BY_VALUE, CostProcessor
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from otel_pipeline.wire.values import Value, any_value

COST: Final = "otel_pipeline.cost."
START_NS: Final = 1_795_294_144_000_000_000
SECOND: Final = 10**9
GPU: Final = "GPU-6d2f0e2c-0000-4000-8000-000000000001"
PRICES: Final = """
currency: USD
prices:
  - {id: image, match: {provider: fal, model: flux}, basis: image, price: 0.003}
  - {id: video, match: {provider: google, model: veo}, basis: video_second, prices: {720p: 0.05, 1080p: 0.08}}
  - {id: speech, match: {provider: eleven}, basis: thousand_characters, price: 0.30}
  - {id: words, match: {provider: whisper}, basis: audio_minute, price: 0.006, round_up: 1}
  - {id: chat, match: {provider: openai}, basis: million_tokens, prices: {input: 2.5, cached_input: 1.25, output: 10}}
  - {id: upscale, match: {provider: upscaler}, basis: request, price: 0.01, currency: EUR}
  - {id: clip, match: {provider: clips}, basis: item, price: 0.08, failed: free}
  - {id: gift, match: {provider: gift}, basis: image, price: 0}
  - {id: told, match: {provider: openrouter}, basis: reported}
  - {id: old, match: {provider: dated}, basis: image, price: 1, effective_to: 2026-11-01}
  - {id: new, match: {provider: dated}, basis: image, price: 2, effective_from: 2026-11-01}
  - {id: rented, match: {gpu: "*H100*", provider: runpod}, basis: gpu_hour, price: 3.6}
  - {id: serverless, match: {gpu: "*4090*", attributes: {cloud.platform: runpod_serverless}}, basis: serverless_second,
     prices: {startup: 0.1, execution: 0.0003, idle: 0.1}}
  - {id: owned, match: {gpu: "*A6000*"}, basis: kilowatt_hour, price: 0.15, currency: EUR}
"""


def put(message: Any, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        message.attributes.add(key=key).value.CopyFrom(any_value(value))


def span(number: Any = 1, *, parent: Any = 0, seconds: Any = 10, kind: Any = 3, status: Any = 0, **told: Any) -> Span:
    """A client's span; `a__b` is the attribute a.b."""
    made = Span(
        trace_id=b"t" * 16,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name="work",
        kind=kind,
        start_time_unix_nano=START_NS,
        end_time_unix_nano=START_NS + int(seconds * SECOND),
    )
    made.status.code = status
    put(made, {key.replace("__", "."): value for key, value in told.items()})
    return made


def call(provider: str, model: Any = "m", number: Any = 1, **told: Any) -> Span:
    return span(number, **{"gen_ai__provider__name": provider, "gen_ai__request__model": model, **told})


def on_gpu(number: Any = 1, name: Any = "NVIDIA H100 80GB HBM3", **told: Any) -> Span:
    marks: dict[str, Any] = {
        "otel_pipeline__stage__name": "inference",
        "otel_pipeline__gpu__ids": [GPU],
        "otel_pipeline__gpu__name": name,
        "otel_pipeline__gpu__status": "ok",
    }
    return span(number, **{"kind": 1, **marks, **told})


class Bench:
    """A processor with a book that only is there, and what came out of it."""

    def __init__(self, folder: Path, prices: str = PRICES, **settings: Any) -> None:
        path = folder / "prices.yaml"
        path.write_text(prices, "utf-8")
        config = CostProcessor.Config.model_validate({"prices": [path], "defaults": False, **settings})
        self.exposition = Exposition(lambda: 1000.0)
        loop: Any = None
        book: Any = None
        books = dict.fromkeys(CostProcessor.books(config), book)
        self.processor = CostProcessor(config, Context("cost", Stats(), self.exposition, loop, books=books))
        self.left: list[bytes] = []

    def spans(self, *spans: Span, **resource: Value) -> list[dict[str, Any]]:
        """The attributes under otel_pipeline.cost of each span that costs something itself, but for `inclusive`."""
        return [
            {
                key.removeprefix("otel_pipeline.cost."): value
                for key, value in one.items()
                if key.startswith("otel_pipeline.cost.") and key != INCLUSIVE and "otel_pipeline.cost.status" in one
            }
            for one in self.whole(*spans, **resource)
        ]

    def whole(self, *spans: Span, **resource: Value) -> list[dict[str, Any]]:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add()
        told = {"service.name": "worker", "host.name": "h1", "cloud.provider": "runpod"}
        put(group.resource, told | {key.replace("__", "."): value for key, value in resource.items()})
        group.scope_spans.add().spans.extend(spans)
        parsed = ExportTraceServiceRequest.FromString(self._through(Signal.TRACES, request.SerializeToString()))
        return [attributes(one) for one in parsed.resource_spans[0].scope_spans[0].spans]

    def metrics(self, request: ExportMetricsServiceRequest) -> None:
        self._through(Signal.METRICS, request.SerializeToString())

    def recorded(self) -> Spans:
        found = decode(self.left[-1]).spans
        assert found is not None
        return found

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(sample.labels.values()): sample.value
            for metric in self.exposition.collect()
            for sample in metric.samples
            if sample.name == name
        }

    def parked(self, number: int, *spans: Span) -> None:
        """A batch of which a processor before this one has set one span aside."""
        request = ExportTraceServiceRequest()
        request.resource_spans.add().scope_spans.add().spans.extend(spans)
        self._through(Signal.TRACES, request.SerializeToString(), number)

    def _through(self, signal: Signal, request: bytes, parked: int | None = None) -> bytes:
        batch = BatchReader(signal, self.processor.attributes(signal)).read([request])[0]
        if parked is not None:
            batch.park(np.arange(len(batch)) == parked)
        self.processor.process(batch)
        assert all(book == "ledger" for book, _ in batch.records)
        self.left += [record for _, record in batch.records]
        return bytes(batch.encode())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def attributes(message: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in message.attributes}


QUANTITY: Final = "otel_pipeline__quantity__"
USAGE: Final = "gen_ai__usage__"


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "amount", "basis"),
    [
        (call("fal", "flux", **{f"{QUANTITY}images": 4}), 0.012, "image"),
        (
            call("google", "veo", **{f"{QUANTITY}video_seconds": 8.0, f"{QUANTITY}resolution": "1080p"}),
            0.64,
            "video_second",
        ),
        (
            call(
                "google", "veo", **{f"{QUANTITY}video_seconds": 8, f"{QUANTITY}width": 1280, f"{QUANTITY}height": 720}
            ),
            0.4,
            "video_second",
        ),
        (call("eleven", **{f"{QUANTITY}characters": 1500}), 0.45, "thousand_characters"),
        (call("whisper", **{f"{QUANTITY}audio_seconds": 59.2}), 0.006, "audio_minute"),
        (call("openai", **{f"{USAGE}input_tokens": 1000, f"{USAGE}output_tokens": 100}), 0.0035, "million_tokens"),
        (call("openai", **{f"{USAGE}prompt_tokens": 1000, f"{USAGE}completion_tokens": 100}), 0.0035, "million_tokens"),
        (
            call("openai", **{f"{USAGE}input_tokens": 1000, f"{USAGE}cache_read__input_tokens": 400}),
            0.002,
            "million_tokens",
        ),
        (call("clips", **{f"{QUANTITY}items": 2}), 0.16, "item"),
    ],
)
def test_a_call_costs_what_it_used(bench: Bench, told: Span, amount: float, basis: str) -> None:
    found = bench.spans(told)[0]
    assert found.pop("price_id") in PRICES
    assert found == {"amount": amount, "basis": basis, "currency": "USD", "status": "final"}


def test_a_request_costs_its_price_in_its_currency(bench: Bench) -> None:
    found = bench.spans(call("upscaler"))[0]
    assert found == {"amount": 0.01, "basis": "request", "currency": "EUR", "status": "final", "price_id": "upscale"}


def test_the_backend_of_a_stage_is_its_provider(bench: Bench) -> None:
    told = {
        "otel_pipeline__stage__name": "voice",
        "otel_pipeline__backend__name": "eleven",
        f"{QUANTITY}characters": 1000,
    }
    assert bench.spans(span(**told))[0]["amount"] == 0.3


def test_what_failed_is_free_where_the_provider_says_so(bench: Bench) -> None:
    found = bench.spans(
        call("clips", status=2, **{f"{QUANTITY}items": 1}), call("fal", "flux", 2, status=2, **{f"{QUANTITY}images": 1})
    )
    assert [(one["amount"], one["status"]) for one in found] == [(0.0, "free"), (0.003, "final")]


def test_what_the_operator_calls_free_is_free(bench: Bench) -> None:
    assert bench.spans(call("gift", **{f"{QUANTITY}images": 3}))[0] == {
        "amount": 0.0, "basis": "image", "currency": "USD", "status": "free", "price_id": "gift",
    }  # fmt: skip


def test_the_price_of_the_day_counts(bench: Bench) -> None:
    late = call("dated", **{f"{QUANTITY}images": 1})
    early = call("dated", number=2, **{f"{QUANTITY}images": 1})
    early.start_time_unix_nano -= 60 * 24 * 3600 * SECOND
    assert [(one["amount"], one["price_id"]) for one in bench.spans(late, early)] == [(2.0, "new"), (1.0, "old")]


@pytest.mark.parametrize(
    ("told", "reason", "label"),
    [
        (call("nobody", "x"), "no price for provider=nobody model=x host=h1", "no_price"),
        (call("fal", "flux"), "the number of images is unknown", "no_quantity"),
        (call("fal", "flux", **{f"{QUANTITY}images": -1}), "the number of images is unknown", "no_quantity"),
        (call("fal", "flux", **{f"{QUANTITY}images": "many"}), "the number of images is unknown", "no_quantity"),
        (call("google", "veo", **{f"{QUANTITY}video_seconds": 8}), "no price for the resolution", "no_quantity"),
        (call("openai"), "the number of tokens is unknown", "no_quantity"),
        (call("openrouter"), "the provider reported no cost", "no_quantity"),
    ],
)
def test_without_a_price_there_is_no_amount_but_a_reason(bench: Bench, told: Span, reason: str, label: str) -> None:
    found = bench.spans(told)[0]
    assert found["status"] == "unpriced"
    assert reason in found["reason"]
    assert "amount" not in found
    assert [labels[0] for labels in bench.counted("otel_pipeline_unpriced_spans_total")] == [label]
    assert bench.counted("otel_pipeline_cost_total") == {}


def test_an_amount_of_a_gateway_before_this_one_goes_if_it_has_no_price(bench: Bench) -> None:
    found = bench.spans(call("nobody", otel_pipeline__cost__amount=1.5, otel_pipeline__cost__status="final"))[0]
    assert found["status"] == "unpriced"
    assert "amount" not in found


def test_costs_are_counted_by_provider_model_and_currency(bench: Bench) -> None:
    bench.spans(
        *(call("fal", "flux", number, **{f"{QUANTITY}images": 1}) for number in (1, 2)), call("upscaler", number=3)
    )
    assert bench.counted("otel_pipeline_cost_total") == {
        ("fal", "flux", "", "image", "USD"): pytest.approx(0.006),
        ("upscaler", "m", "", "request", "EUR"): pytest.approx(0.01),
    }


# -- what costs nothing, and what is told twice ------------------------------------------------------------------------


def test_a_span_that_costs_nothing_is_left_alone(bench: Bench) -> None:
    assert bench.whole(span(http__request__method="GET")) == [{"http.request.method": "GET"}]
    assert bench.left == []


@pytest.mark.parametrize("operation", ["invoke_agent", "invoke_workflow", "execute_tool"])
def test_what_sums_up_calls_is_not_charged(bench: Bench, operation: str) -> None:
    usage: dict[str, Any] = {f"{USAGE}input_tokens": 1000, "gen_ai__operation__name": operation}
    assert bench.spans(call("openai", **usage))[0] == {}


@pytest.mark.parametrize("kind", [2, 4, 5])
def test_who_answers_a_call_does_not_pay_for_it(bench: Bench, kind: int) -> None:
    assert bench.spans(call("openai", kind=kind, **{f"{USAGE}input_tokens": 1000}))[0] == {}


def test_a_job_is_not_charged_for_what_its_stages_used(bench: Bench) -> None:
    job = call("fal", "flux", otel_pipeline__job__outcome="completed", **{f"{QUANTITY}images": 4})
    stage = span(2, parent=1, otel_pipeline__stage__name="image", otel_pipeline__backend__name="fal", **{
        "gen_ai__request__model": "flux", f"{QUANTITY}images": 4,
    })  # fmt: skip
    assert [one.get("amount") for one in bench.spans(job, stage)] == [None, 0.012]


def usage(number: int, parent: Any = 0, **told: Any) -> Span:
    return call("openai", **{"number": number, "parent": parent, f"{USAGE}input_tokens": 1000, **told})


def test_a_call_that_two_spans_tell_is_charged_once(bench: Bench) -> None:
    found = bench.spans(usage(1), span(2, parent=1), usage(3, parent=2))
    assert [one.get("amount") for one in found] == [None, None, 0.0025]


def test_a_call_that_two_batches_tell_is_charged_once(bench: Bench) -> None:
    assert bench.spans(usage(3, parent=2))[0]["amount"] == 0.0025
    assert bench.spans(span(2, parent=1))[0] == {}
    assert bench.spans(usage(1))[0] == {}


def test_a_call_of_another_model_below_is_another_call(bench: Bench) -> None:
    video = call("google", "veo", 1, **{f"{QUANTITY}video_seconds": 1, f"{QUANTITY}resolution": "720p"})
    assert [one["amount"] for one in bench.spans(video, usage(2, parent=1))] == [0.05, 0.0025]


def test_the_same_span_again_gets_the_same(bench: Bench) -> None:
    first, second = bench.spans(usage(1)), bench.spans(usage(1))
    assert first == second
    assert bench.left[0] == bench.left[1]


# -- costs that the sender reports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        {"gen_ai__usage__cost__amount": 0.25},
        {"gen_ai__usage__cost__total": 0.25},
        {"gen_ai__usage__cost__prompt": 0.05, "gen_ai__usage__cost__completion": 0.2},
        {"gen_ai__usage__cost": 0.25},
        {"gen_ai__usage__input_cost": 0.05, "gen_ai__usage__output_cost": 0.2},
        {"gen_ai__usage__output_cost": 0.25},
        {"gen_ai__cost__usd": 0.25},
        {"ai__total_cost": 0.25},
        {"operation__cost": 0.25},
    ],
)
def test_a_reported_cost_is_kept_and_preferred(bench: Bench, told: dict[str, Value]) -> None:
    found = bench.whole(usage(1, **told))[0]
    assert {key: found[key.replace("__", ".")] for key in told} == told
    assert found["otel_pipeline.cost.amount"] == 0.25
    assert found["otel_pipeline.cost.basis"] == "reported"
    assert found["otel_pipeline.cost.price_id"] == "reported.client"
    assert found["otel_pipeline.cost.delta"] == pytest.approx(0.2475)


def test_what_the_provider_says_is_told_apart(bench: Bench) -> None:
    told: dict[str, Any] = {"gen_ai__usage__cost__amount": 0.0025, "gen_ai__usage__cost__source": "provider"}
    found = bench.spans(usage(1, **told))[0]
    assert found["price_id"] == "reported.provider"
    assert "delta" not in found


def test_a_reported_cost_in_another_currency_is_not_compared(bench: Bench) -> None:
    found = bench.spans(usage(1, gen_ai__usage__cost__amount=0.25, gen_ai__usage__cost__currency="EUR"))[0]
    assert (found["amount"], found["currency"]) == (0.25, "EUR")
    assert "delta" not in found


def test_the_first_of_several_reported_costs_counts(bench: Bench) -> None:
    told: dict[str, Any] = {"gen_ai__usage__cost__amount": 0.5, "operation__cost": 0.25, "gen_ai__cost__usd": 0.75}
    assert bench.spans(usage(1, **told))[0]["amount"] == 0.5


def test_a_reported_cost_needs_no_price(bench: Bench) -> None:
    found = bench.spans(call("nobody", gen_ai__usage__cost=0.25))[0]
    assert (found["amount"], found["status"], found["currency"]) == (0.25, "final", "USD")
    assert "reason" not in found


def test_a_client_that_reckons_nothing_is_not_believed(bench: Bench) -> None:
    assert bench.spans(usage(1, gen_ai__usage__cost=0.0))[0]["amount"] == 0.0025
    assert bench.spans(call("nobody", gen_ai__usage__cost=0.0))[0]["status"] == "unpriced"
    told: dict[str, Any] = {"gen_ai__usage__cost__amount": 0.0, "gen_ai__usage__cost__source": "provider"}
    assert bench.spans(usage(2, **told))[0]["amount"] == 0.0


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf"), 1e300, "0.25"])
def test_a_reported_cost_that_is_none_is_passed_over(bench: Bench, cost: Value) -> None:
    assert bench.spans(usage(1, gen_ai__usage__cost=cost))[0]["amount"] == 0.0025


@pytest.mark.parametrize("currency", ["euro", "", "€"])
def test_a_currency_that_is_none_is_that_of_the_configuration(tmp_path: Path, currency: str) -> None:
    told: dict[str, Any] = {"gen_ai__usage__cost__amount": 1.0, "gen_ai__usage__cost__currency": currency}
    assert Bench(tmp_path, currency="CHF").spans(usage(1, **told))[0]["currency"] == "CHF"


# -- GPUs --------------------------------------------------------------------------------------------------------------


def test_time_on_a_gpu_is_provisional(bench: Bench) -> None:
    assert bench.spans(on_gpu())[0] == {
        "amount": 0.01, "basis": "gpu_hour", "currency": "USD", "status": "provisional", "price_id": "rented",
    }  # fmt: skip
    recorded = bench.recorded()
    fact = recorded.facts[recorded.fact[0]]
    assert (fact.claims, fact.gpus, fact.kind, fact.host, fact.provider) == (True, (GPU,), "stage", "h1", "runpod")
    assert recorded.nano.tolist() == [10_000_000]
    assert bench.counted("otel_pipeline_cost_total") == {}


def test_two_gpus_cost_twice_as_much(bench: Bench) -> None:
    assert bench.spans(on_gpu(otel_pipeline__gpu__ids=[GPU, "GPU-2"]))[0]["amount"] == 0.02


def test_serverless_gpus_are_charged_for_execution(bench: Bench) -> None:
    found = bench.spans(on_gpu(name="NVIDIA GeForce RTX 4090"), cloud__platform="runpod_serverless")[0]
    assert (found["amount"], found["basis"]) == (0.003, "serverless_second")


def test_owned_gpus_are_charged_for_energy(bench: Bench) -> None:
    found = bench.spans(on_gpu(name="NVIDIA RTX A6000", otel_pipeline__gpu__energy=3600.0))[0]
    assert (found["amount"], found["currency"], found["status"]) == (0.00015, "EUR", "provisional")
    assert bench.recorded().energy_mj.tolist() == [3_600_000]
    assert "the energy is unknown" in bench.spans(on_gpu(name="NVIDIA RTX A6000"))[0]["reason"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "NVIDIA T4"}, "no price for provider=runpod gpu=NVIDIA T4"),
        ({"name": "NVIDIA T4, NVIDIA L4"}, "several models"),
        ({"otel_pipeline__gpu__ids": [], "otel_pipeline__gpu__status": "ambiguous"}, "not known which GPU"),
    ],
)
def test_a_gpu_without_a_price_claims_all_the_same(bench: Bench, change: dict[str, Any], reason: str) -> None:
    found = bench.spans(on_gpu(**change))[0]
    assert found["status"] == "unpriced"
    assert reason in found["reason"]
    assert bench.recorded().facts[0].claims


def test_a_stage_that_calls_somebody_else_does_not_claim_the_gpu(bench: Bench) -> None:
    found = bench.spans(
        on_gpu(otel_pipeline__backend__name="fal", gen_ai__request__model="flux", **{f"{QUANTITY}images": 1})
    )[0]
    assert (found["basis"], found["status"]) == ("image", "final")
    assert not bench.recorded().facts[0].claims


def test_a_stage_with_a_backend_that_has_no_price_claims_the_gpu(bench: Bench) -> None:
    assert (
        bench.spans(on_gpu(otel_pipeline__backend__name="local", gen_ai__request__model="flux"))[0]["basis"]
        == "gpu_hour"
    )


def test_a_client_of_a_model_on_a_gpu_host_claims_nothing(bench: Bench) -> None:
    told = {"otel_pipeline__gpu__ids": [GPU], "gen_ai__request__model": "flux"}
    assert bench.spans(span(kind=3, **told))[0]["reason"] == "no price for model=flux host=h1"
    assert not bench.recorded().facts[0].claims


def test_the_operator_says_what_claims(tmp_path: Path) -> None:
    bench = Bench(tmp_path, claims=['span.attributes["app.gpu"] == true'])
    told = {"otel_pipeline__gpu__ids": [GPU], "otel_pipeline__gpu__name": "NVIDIA H100", "app__gpu": True}
    found = bench.spans(span(kind=1, **told), on_gpu(2))
    assert [one.get("status") for one in found] == ["provisional", None]


# -- whatever comes ----------------------------------------------------------------------------------------------------

GPU_MARKS: Final = ("ids", "name", "status", "energy")
ANY_VALUE: Final = (
    st.sampled_from(
        ["", "x", "openai", "fal", "flux", "720p", "EUR", "ok", "ambiguous", GPU, "invoke_agent", "provider"]
    )
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.booleans()
    | st.lists(st.sampled_from(["a", GPU, ""]), max_size=3)
)
KEYS: Final = sorted(
    {*TOLD_BY_VALUE, *SHOWN, *OTHER_KEYS, *spans.QUANTITIES, *spans.REPORTED_KEYS, *WRITTEN}
    | {f"otel_pipeline.gpu.{name}" for name in GPU_MARKS}
)
ODD_SPANS: Final = st.builds(
    lambda number, parent, kind, end_ns, told: Span(
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big"),
        kind=kind,
        start_time_unix_nano=2**62,
        end_time_unix_nano=end_ns,
        attributes=[KeyValue(key=key, value=any_value(value)) for key, value in told.items()],
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 5),
    st.sampled_from([0, 2**62 + 1, 2**63, 2**64 - 1]),
    st.dictionaries(st.sampled_from(KEYS), ANY_VALUE, max_size=8),
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD_SPANS, min_size=1, max_size=5))
def test_odd_spans_get_an_amount_or_a_reason(bench: Bench, odd: list[Span]) -> None:
    for found in bench.whole(*odd):
        status = found.get("otel_pipeline.cost.status")
        if status in ("final", "provisional", "free"):
            assert "otel_pipeline.cost.currency" in found
        if status == "unpriced" and "otel_pipeline.cost.basis" not in found:
            assert "otel_pipeline.cost.reason" in found
    for record in bench.left:
        assert decode(record).spans is not None


def test_centuries_on_gpus_have_no_amount(bench: Bench) -> None:
    long = on_gpu(otel_pipeline__gpu__ids=[GPU, *"abcdefg"])
    long.start_time_unix_nano, long.end_time_unix_nano = 0, 2**62
    found = bench.spans(long)[0]
    assert found["status"] == "unpriced"
    assert "the time on the GPU is unknown" in found["reason"]


def test_a_batch_of_all_different_spans_is_told_apart_by_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.processors.cost.COST_DISTINCT_MAX", 3)
    bench = Bench(tmp_path)
    images: dict[str, Any] = {f"{QUANTITY}images": 1}
    odd = [call("fal", "flux", number, otel_pipeline__workflow__name=f"w{number}", **images) for number in range(1, 6)]
    assert [one["amount"] for one in bench.spans(*odd)] == [0.003] * 5
    assert [fact.workflow for fact in bench.recorded().facts] == [""]
    odd = [call("fal", f"flux{number}", number, **images) for number in range(1, 6)]
    assert {one["status"] for one in bench.spans(*odd)} == {"unpriced"}
    assert len(bench.recorded().facts) == 1


def test_what_is_known_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.ledger.offers.COST_KNOWN_MAX", 4)
    monkeypatch.setattr("otel_pipeline.processors.cost.COST_KNOWN_MAX", 4)
    bench = Bench(tmp_path)
    for number in range(1, 20):
        images: dict[str, Any] = {f"{QUANTITY}images": 1, "otel_pipeline__workflow__name": f"w{number}"}
        assert (
            bench.spans(call("fal", "flux", number, **images), **{"service.name": f"s{number}"})[0]["amount"] == 0.003
        )


def test_what_cannot_be_learned_spoils_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    images: dict[str, Any] = {f"{QUANTITY}images": 1}
    find, strange = Offers.find, "strange"

    def failing(self: Offers, place: Any, said: Any) -> Any:
        if strange in said.texts.values():
            raise RuntimeError(strange)
        return find(self, place, said)

    assert bench.spans(call("gift", **images))[0]["amount"] == 0
    monkeypatch.setattr(Offers, "find", failing)
    with pytest.raises(RuntimeError, match=strange):
        bench.spans(call("fal", strange, **images), call("dated", number=2, **images))
    found = bench.spans(call("dated", **images), call("fal", "flux", 2, **images), call("gift", number=3, **images))
    assert [one["amount"] for one in found] == [2, 0.003, 0]


# -- for the ledger ----------------------------------------------------------------------------------------------------


def test_the_ledger_learns_what_a_span_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, dimensions=["length", "team", "absent"])
    told: dict[str, Any] = {
        "otel_pipeline__job__id": "j1", "enduser__pseudo__id": "u1", "otel_pipeline__job__outcome": "failed",
        "otel_pipeline__job__attempt": 2, "otel_pipeline__job__type": "render", "otel_pipeline__job__tier": "pro",
        "otel_pipeline__workflow__name": "portrait", "length": 3, "status": 2,
    }  # fmt: skip
    bench.spans(on_gpu(7, parent=3, **told), team="red", cloud__region="eu")
    recorded = bench.recorded()
    fact = recorded.facts[recorded.fact[0]]
    assert (fact.kind, fact.outcome, fact.attempt, fact.job_type, fact.tier, fact.failed) == (
        "job", "failed", 2, "render", "pro", True,
    )  # fmt: skip
    assert (fact.workflow, fact.service, fact.region) == ("portrait", "worker", "eu")
    assert fact.dimensions == (("length", "3"), ("team", "red"))
    assert (recorded.job.at(0), recorded.user.at(0)) == ("j1", "u1")
    assert (recorded.span[0], recorded.parent[0]) == (7, 3)
    assert (recorded.start_ns[0], recorded.end_ns[0]) == (START_NS, START_NS + 10 * SECOND)


def test_the_ledger_learns_what_was_used_and_reported(bench: Bench) -> None:
    bench.spans(usage(1, gen_ai__usage__cost=0.25), call("fal", "flux", 2, **{f"{QUANTITY}images": 2}))
    recorded = bench.recorded()
    used = [json.loads(recorded.quantities().at(row) or "{}") for row in range(2)]
    assert used == [{"input_tokens": 1000}, {"images": 2}]
    assert recorded.reported_nano.tolist() == [250_000_000, -1]
    assert [recorded.reported_currency.at(row) for row in range(2)] == ["USD", None]
    assert [recorded.verdicts[code][VERDICT.index("status")] for code in recorded.verdict.tolist()] == [
        "final",
        "final",
    ]


def test_spans_between_two_that_matter_are_told_too(bench: Bench) -> None:
    bench.spans(span(1), span(2, parent=1), on_gpu(3, parent=2), span(4))
    assert bench.recorded().span.tolist() == [1, 2, 3]


def test_spans_above_one_that_waits_elsewhere_are_told(bench: Bench) -> None:
    """What `gpu_stats` has parked comes in another batch, and asks then who is above it."""
    bench.parked(1, span(1), on_gpu(2, parent=1))
    assert bench.recorded().span.tolist() == [1]


def test_the_ledger_learns_by_what_a_price_was_looked_up(tmp_path: Path) -> None:
    cheap = "{id: batch, match: {provider: fal, attributes: {tier: batch}}, basis: image, price: 0.001}"
    bench = Bench(tmp_path, f"{PRICES}  - {cheap}\n")
    told: dict[str, Any] = {f"{QUANTITY}images": 1, f"{QUANTITY}width": 640, "tier": "batch"}
    bench.spans(call("fal", "flux", **told), k8s__pod__name="pod-7")
    (verdict,) = bench.recorded().verdicts
    asked = json.loads(verdict[VERDICT.index("asked")])
    assert asked == {"attributes": {"cloud.platform": "", "tier": "batch"}, "width": 640, "pod": "pod-7"}


def test_a_span_that_ends_before_it_starts_lasts_no_time(bench: Bench) -> None:
    assert bench.spans(on_gpu(seconds=-5))[0]["amount"] == 0.0
    assert bench.recorded().end_ns.tolist() == [START_NS]


@pytest.mark.parametrize(("shares", "told"), [("fixed", [180_180, 720_720, -1]), ("equal", [-1, -1, -1])])
def test_how_much_of_a_gpu_a_span_had_is_told_where_it_matters(tmp_path: Path, shares: str, told: list[int]) -> None:
    bench = Bench(tmp_path, f"prices: [{{id: sliced, basis: gpu_hour, price: 1, shares: {shares}}}]")
    key = {"otel_pipeline__gpu__share": 0.25}
    bench.spans(on_gpu(1, **key), on_gpu(2, otel_pipeline__gpu__share=1), on_gpu(3, otel_pipeline__gpu__share="all"))
    assert [bench.recorded().facts[code].share for code in bench.recorded().fact] == told
    bench.spans(on_gpu(4), **key)
    assert bench.recorded().facts[0].share == told[0]


def test_without_a_ledger_nothing_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ledger=False)
    assert bench.spans(on_gpu())[0]["amount"] == 0.01
    assert bench.left == []


def samples(*seconds: int, name: str = "NVIDIA L4") -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    put(group.resource, {"host.name": "h1", "cloud.provider": "runpod", "k8s.pod.name": "p"})
    gauge = group.scope_metrics.add().metrics.add(name="hw.gpu.utilization", unit="1").gauge
    for second in seconds:
        point = gauge.data_points.add(time_unix_nano=START_NS + second * SECOND, as_double=0.5)
        put(point, {"hw.id": GPU, "hw.type": "gpu", "hw.name": name})
    return request


def test_the_ledger_learns_which_gpus_were_there(bench: Bench) -> None:
    bench.metrics(samples(0, 1, 61))
    minute = START_NS // (60 * SECOND)
    assert decode(bench.left[0]).presence == [
        Presence(("h1",), GPU, "NVIDIA L4", (minute, minute + 1), provider="runpod", pod="p")
    ]


def test_each_minute_of_a_gpu_is_told_once(bench: Bench) -> None:
    for seconds in ((0,), (1, 2), (3,), (60,)):
        bench.metrics(samples(*seconds))
    assert [len(decode(one).presence[0].minutes) for one in bench.left] == [1, 1]


def counter(*readings: tuple[float, float]) -> ExportMetricsServiceRequest:
    """Of an energy counter: seconds and J."""
    request = samples()
    total = request.resource_metrics[0].scope_metrics[0].metrics.add(name="hw.energy", unit="J").sum
    total.aggregation_temporality = 2
    for second, joules in readings:
        point = total.data_points.add(time_unix_nano=START_NS + int(second * SECOND), as_double=joules)
        put(point, {"hw.id": GPU, "hw.type": "gpu", "hw.name": "NVIDIA RTX A6000"})
    return request


def test_the_ledger_learns_what_counters_of_energy_said_every_ten_seconds(bench: Bench) -> None:
    at_ms = START_NS // 10**6
    slot_ms = -at_ms % 10_000
    bench.metrics(counter((0, 5.0), (0.5, 6.0), (slot_ms / 1000, 7.5)))
    bench.metrics(counter((slot_ms / 1000 + 9.9, 8.0), (slot_ms / 1000 + 10.25, 9.0005)))
    told = [decode(one).presence[0].energy for one in bench.left]
    assert told == [(("hw", at_ms, 5000), ("hw", at_ms + slot_ms, 7500)), (("hw", at_ms + slot_ms + 10_250, 9000),)]


def test_without_a_price_of_energy_nobody_keeps_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "prices: [{id: rented, basis: gpu_hour, price: 1}]")
    bench.metrics(counter((0, 5.0)))
    assert decode(bench.left[0]).presence[0].energy == ()


# -- configuration -----------------------------------------------------------------------------------------------------


def test_the_shipped_prices_can_be_switched_off(tmp_path: Path) -> None:
    told = call(
        "gcp.gemini", "veo-3.1-generate-preview", **{f"{QUANTITY}video_seconds": 8, f"{QUANTITY}resolution": "720p"}
    )
    on, off = Bench(tmp_path, "{}", defaults=True), Bench(tmp_path, "{}")
    filed = Bench(tmp_path, "defaults: false", defaults=True)
    assert [one.spans(told)[0]["status"] for one in (on, off, filed)] == ["final", "unpriced", "unpriced"]


def test_a_wrong_price_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prices.yaml"):
        Bench(tmp_path, "prices: [{id: x}]")


@pytest.mark.parametrize("settings", [{"currency": "dollars"}, {"dimensions": [""]}, {"claims": ["nonsense ("]}])
def test_wrong_settings_are_told(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CostProcessor.Config.model_validate(settings)
