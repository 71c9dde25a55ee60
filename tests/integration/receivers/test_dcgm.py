"""The `dcgm` receiver against real HTTP servers, alone and in a whole gateway."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pydantic import ValidationError

from otel_pipeline.config.loader import load
from otel_pipeline.contracts import Accepted, Context, Rejected, RetryLater
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exposition.families import Exposition
from otel_pipeline.gateway import Gateway
from otel_pipeline.gpu.ingest import read
from otel_pipeline.gpu.quantities import Quantity
from otel_pipeline.receivers import dcgm
from otel_pipeline.receivers.dcgm import DcgmReceiver
from otel_pipeline.stats import Stats
from otel_pipeline.wire.scan import BatchReader
from otel_pipeline.wire.signal import Signal
from tests.support.net import Certificates, free_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_pipeline.contracts import Verdict
    from otel_pipeline.gpu.ingest import Samples

PAGE = (Path(__file__).parents[2] / "data/gpu/dcgm.prom").read_text("utf-8")
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
A = "GPU-11111111-aaaa-4000-8000-000000000000"
TIMEOUT_S = 20.0


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline_s = time.monotonic() + TIMEOUT_S
    wait = threading.Event()
    while not holds():
        assert time.monotonic() < deadline_s
        wait.wait(0.005)


class Exporter:
    """Answers with a page; what it is asked is remembered."""

    def __init__(self, loop: EventLoop, tls: ssl.SSLContext | None = None) -> None:
        self.page = PAGE
        self.status = 200
        self.headers: dict[str, str] = {}
        self.hangs = False
        self.asked: list[web.Request] = []
        self.endpoint = free_endpoint()
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        loop.serve(app, self.endpoint, tls)

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if self.hangs:
            await asyncio.sleep(60)
        return web.Response(text=self.page, status=self.status, headers=self.headers)


class Entrance:
    """Gives one verdict, after a while if it takes its time, and keeps the requests."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.takes_s = 0.0
        self.bodies: list[bytes] = []
        self.given = 0

    async def accept(self, body: bytes) -> Verdict:
        self.bodies.append(body)
        await asyncio.sleep(self.takes_s)
        self.given += 1
        return self.verdict

    def samples(self) -> list[Samples]:
        return [read(BatchReader(Signal.METRICS).read([body])[0]) for body in self.bodies]


class Receiver:
    """A receiver that scrapes as fast as it is told, with a clock that the test sets."""

    def __init__(self, loop: EventLoop, *endpoints: str, verdict: Verdict | None = None, **settings: Any) -> None:
        self.stats = Stats()
        self.now_s = 1000.0
        self.entrance = Entrance(verdict or Accepted())
        listed = [{"endpoint": endpoint} for endpoint in endpoints]
        config = DcgmReceiver.Config.model_validate({"endpoints": listed, "collection_interval": "20ms"} | settings)
        context = Context("dcgm", self.stats, Exposition(), loop, lambda: self.now_s)
        self.receiver = DcgmReceiver(config, context, {"http": {Signal.METRICS: self.entrance}})
        self.receiver.start()

    def count(self, outcome: str) -> float:
        return float(self.stats.dcgm_scrapes.labels("dcgm", outcome)._value.get())

    def reaches(self, outcome: str, total: int = 1) -> None:
        """Wait until there were so many scrapes with this outcome."""
        until(lambda: self.count(outcome) >= total)

    def goes_on(self, outcome: str, more: int = 2) -> None:
        """Wait until there are so many more of them: the first may have begun before."""
        self.reaches(outcome, int(self.count(outcome)) + more)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    one = EventLoop()
    one.start()
    yield one
    one.stop()


@pytest.fixture
def start(loop: EventLoop) -> Iterator[Callable[..., Receiver]]:
    started: list[Receiver] = []

    def make(*endpoints: str, **settings: Any) -> Receiver:
        started.append(Receiver(loop, *endpoints, **settings))
        return started[-1]

    yield make
    for one in started:
        one.receiver.stop(1.0)
        one.receiver.stop(1.0)


# -- scrapes -----------------------------------------------------------------------------------------------------------


def test_a_page_arrives_as_samples_of_the_host_that_it_names(loop: EventLoop, start: Callable[..., Receiver]) -> None:
    exporter = Exporter(loop)
    receiver = start(f"http://{exporter.endpoint}")
    receiver.reaches("ok")
    samples = receiver.entrance.samples()[0]
    energy = next(block for block in samples.blocks if (block.gpu, block.quantity) == (A, Quantity.ENERGY))
    assert energy.values.tolist() == [pytest.approx(1234567.89)]
    assert (energy.times_ns.tolist(), energy.age_max_ns, energy.hosts) == ([10**12], 30 * 10**9, ("node-7",))
    assert exporter.asked[0].path == "/metrics"
    assert exporter.asked[0].headers["Accept-Encoding"] == "identity"
    assert receiver.stats.dcgm_left_out.labels("dcgm", "sentinel")._value.get() >= 3


def test_a_cached_page_is_handed_in_once_and_the_next_measurement_tells_how_old_it_may_be(
    loop: EventLoop, start: Callable[..., Receiver]
) -> None:
    exporter = Exporter(loop)
    receiver = start(f"http://{exporter.endpoint}/metrics")
    receiver.reaches("cached")
    receiver.now_s = 1010.0
    receiver.goes_on("cached")
    assert len(receiver.entrance.bodies) == 1
    exporter.page = PAGE.replace("1234567890", "1234599990")
    receiver.reaches("ok", 2)
    first, second = receiver.entrance.samples()
    assert {block.gpu for block in second.blocks} == {A}  # the other GPU's values are those of before
    assert {block.age_max_ns for block in first.blocks} == {30 * 10**9}
    assert {block.age_max_ns for block in second.blocks} == {0}  # the clock stood still since the last scrape


def test_values_that_stay_for_longer_than_the_exporters_interval_were_measured_again(
    loop: EventLoop, start: Callable[..., Receiver]
) -> None:
    receiver = start(f"http://{Exporter(loop).endpoint}", exporter_interval="30s")
    receiver.reaches("cached")
    receiver.now_s = 1030.0
    receiver.reaches("ok", 2)
    receiver.goes_on("cached")
    assert [samples.blocks[0].times_ns.tolist() for samples in receiver.entrance.samples()] == [
        [10**12],
        [103 * 10**10],
    ]
    assert receiver.entrance.samples()[1].blocks[0].age_max_ns == 30 * 10**9


def test_headers_and_the_hosts_name_are_set(loop: EventLoop, start: Callable[..., Receiver]) -> None:
    exporter = Exporter(loop)
    one = {"endpoint": f"http://{exporter.endpoint}/x", "headers": {"Authorization": "Bearer t"}, "host_name": "mine"}
    receiver = start(endpoints=[one])
    receiver.reaches("ok")
    assert (exporter.asked[0].path, exporter.asked[0].headers["Authorization"]) == ("/x", "Bearer t")
    assert receiver.entrance.samples()[0].blocks[0].hosts == ("mine",)


def test_tls_is_checked_against_the_given_authority(
    loop: EventLoop, start: Callable[..., Receiver], tmp_path: Path
) -> None:
    files = Certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert_file, files.key_file)
    exporter = Exporter(loop, context)
    url = f"https://{exporter.endpoint}"
    start(endpoints=[{"endpoint": url, "tls": {"ca_file": files.ca_file}}]).reaches("ok")
    start(endpoints=[{"endpoint": url}]).reaches("unreachable")
    start(endpoints=[{"endpoint": url, "tls": {"insecure_skip_verify": True}}]).reaches("ok")


def test_a_client_certificate_is_shown(loop: EventLoop, start: Callable[..., Receiver], tmp_path: Path) -> None:
    files = Certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.cert_file, files.key_file)
    exporter = Exporter(loop, context)
    tls = {"ca_file": files.ca_file, "cert_file": files.client_cert_file, "key_file": files.client_key_file}
    start(endpoints=[{"endpoint": f"https://{exporter.endpoint}", "tls": tls}]).reaches("ok")
    start(endpoints=[{"endpoint": f"https://{exporter.endpoint}", "tls": {"ca_file": files.ca_file}}]).reaches(
        "unreachable"
    )


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "change"),
    [
        ("http_status", {"status": 503}),
        ("no_gpus", {"page": "# nothing\n"}),
        ("too_large", {"page": PAGE * 400}),
        ("encoding", {"headers": {"Content-Encoding": "gzip"}}),
        ("timeout", {"hangs": True}),
    ],
)
def test_an_answer_that_is_of_no_use_is_counted_and_the_next_may_do(
    loop: EventLoop, start: Callable[..., Receiver], outcome: str, change: dict[str, Any]
) -> None:
    exporter = Exporter(loop)
    vars(exporter).update(change)
    receiver = start(f"http://{exporter.endpoint}", timeout="200ms", max_response_bytes=1024 * 1024)
    receiver.reaches(outcome, 2)
    assert receiver.entrance.bodies == []
    vars(exporter).update(status=200, page=PAGE, headers={}, hangs=False)
    receiver.reaches("ok")


def test_one_exporter_that_is_down_leaves_the_others_and_is_told_about_once(
    loop: EventLoop, start: Callable[..., Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    exporter = Exporter(loop)
    down = free_endpoint()
    receiver = start(f"http://user:secret@{down}", f"http://{exporter.endpoint}")
    receiver.reaches("ok")
    receiver.reaches("unreachable", 3)
    receiver.goes_on("cached", 3)
    (record,) = [record for record in caplog.records if record.name == dcgm.__name__]
    assert down in record.getMessage()
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("verdict", "outcome"), [(RetryLater(1.0, "full"), "retry_later"), (Rejected("no"), "rejected")]
)
def test_a_scrape_that_the_pipeline_does_not_take_is_dropped_counted_and_asked_for_anew(
    loop: EventLoop, start: Callable[..., Receiver], verdict: Verdict, outcome: str
) -> None:
    receiver = start(f"http://{Exporter(loop).endpoint}", verdict=verdict)
    receiver.reaches(outcome, 2)
    receiver.entrance.verdict = Accepted()
    receiver.reaches("ok")  # the same values are handed in again


def test_a_mistake_of_ours_does_not_end_the_scrapes(
    loop: EventLoop, start: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = Exporter(loop)
    with monkeypatch.context() as patch:
        patch.setattr(dcgm, "read_page", lambda _: 1 / 0)
        receiver = start(f"http://{exporter.endpoint}")
        receiver.reaches("failed", 2)
    receiver.reaches("ok")


def test_it_stops_while_an_exporter_hangs(loop: EventLoop, start: Callable[..., Receiver]) -> None:
    exporter = Exporter(loop)
    exporter.hangs = True
    receiver = start(f"http://{exporter.endpoint}", timeout="60s")
    until(lambda: bool(exporter.asked))
    began_s = time.monotonic()
    receiver.receiver.stop(5.0)
    assert time.monotonic() - began_s < 3.0


def test_what_was_handed_in_has_its_verdict_before_it_stops(loop: EventLoop, start: Callable[..., Receiver]) -> None:
    receiver = start(f"http://{Exporter(loop).endpoint}")
    receiver.reaches("ok")
    receiver.entrance.takes_s, receiver.now_s = 0.3, 2000.0
    until(lambda: len(receiver.entrance.bodies) == 2)
    receiver.receiver.stop(5.0)
    assert receiver.entrance.given == 2


def test_it_may_be_stopped_after_the_loop() -> None:
    loop = EventLoop()
    loop.start()
    receiver = Receiver(loop, f"http://{free_endpoint()}")
    receiver.receiver.stop(0.1)
    loop.stop()
    receiver.receiver.stop(0.1)
    assert not loop.running


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoints": []},
        {"endpoints": [{"endpoint": "gpu-node-1:9400"}]},
        {"endpoints": [{"endpoint": "http://h"}], "collection_interval": "0s"},
        {"endpoints": [{"endpoint": "http://h"}], "max_response_bytes": 1 << 40},
    ],
)
def test_a_configuration_that_cannot_work_is_a_mistake(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DcgmReceiver.Config.model_validate(wrong)


# -- in a gateway ------------------------------------------------------------------------------------------------------


def test_what_an_exporter_says_leaves_a_gateway_as_otlp(loop: EventLoop, tmp_path: Path) -> None:
    exporter = Exporter(loop)
    got: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.read())
        return web.Response(body=b"", content_type="application/x-protobuf")

    sink = free_endpoint()
    app = web.Application()
    app.router.add_post("/v1/metrics", take)
    loop.serve(app, sink)
    config = {
        "receivers": {"dcgm": {"endpoints": [{"endpoint": f"http://{exporter.endpoint}"}]}},
        "exporters": {"otlphttp": {"endpoint": f"http://{sink}", "compression": "none"}},
        "service": {
            "pipelines": {"metrics": {"receivers": ["dcgm"], "exporters": ["otlphttp"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    gateway = Gateway(load([f"yaml:{yaml.safe_dump(config)}"], environ={}), tmp_path)
    gateway.start()
    try:
        until(lambda: bool(got))
    finally:
        gateway.stop()
    message = ExportMetricsServiceRequest.FromString(got[0])
    metrics = message.resource_metrics[0].scope_metrics[0].metrics
    assert {"hw.gpu.utilization", "hw.power", "hw.energy", "hw.gpu.memory.usage"} <= {metric.name for metric in metrics}
    power = next(metric for metric in metrics if metric.name == "hw.power").gauge.data_points
    assert [point.as_double for point in power] == [387.25]
    assert abs(power[0].time_unix_nano - time.time_ns()) < TIMEOUT_S * 1e9
