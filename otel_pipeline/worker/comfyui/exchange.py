"""One HTTP exchange with a ComfyUI server, from the request to the end of the answer's body, for every client library.

A library's adapter (client_*.py) calls these hooks around the host's own call, in this order:

    exchange = begin(method, url, body)     # None for all that does not concern ComfyUI; the context is attached
    ... = request_body(exchange, body)      # what to send instead, for POST /prompt
    failed(exchange, error)                 # the call raised
    leave(exchange)                         # in any case: the context is detached
    answered(exchange, status, header)      # the head of the answer is there
    received(exchange, body)                # its body, if `exchange.wants_body`
    counted(exchange, size); finished(exchange, error)     # for `exchange.wants_size`: a download

| request | what becomes of it |
| --- | --- |
| POST /prompt | a `comfyui.prompt` span, current during the POST |
| GET /view | a `comfyui.download` span until the body is read, instead of the official one |
| POST /upload/... | a `comfyui.upload` span, instead of the official one |
| other GET: /history, /queue, /api/jobs ... | no span; counted on the prompt's span |
| other POST: /interrupt, /queue ... | the official span; what it does to prompts is noted |
| POST, PUT, PATCH to any other server, in a job | may be a status message of the job (outcomes.py) |
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry import context, metrics, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_pipeline import __version__
from otel_pipeline.worker import names, outcomes
from otel_pipeline.worker.comfyui import bodies, polls
from otel_pipeline.worker.comfyui.answers import FAILED, REFUSED, UNKNOWN, Accepted, End, answer
from otel_pipeline.worker.comfyui.prompts import Prompt, prompts
from otel_pipeline.worker.comfyui.routes import DEFAULT_PORT, UNMISTAKABLE, Endpoint, Route, base_of, classify
from otel_pipeline.worker.flow import error_name, touch
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job
from otel_pipeline.worker.quiet import silenced
from otel_pipeline.worker.settings import settings

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Of a body to another server that is looked into: status messages are small."""
SERVERS_MAX: Final = 1000
"""Servers that are remembered as ComfyUI; pods come and go under new addresses."""
NODES_HEADER: Final = "x-otel-pipeline-nodes"
"""In the answer to POST /prompt of a server that reports its nodes itself: `server`."""

_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})
_INSIDE: Final = context.create_key("otel_pipeline.comfyui.exchange")
"""Set while one is under way: clients are built upon each other, and a redirect is sent by the same function."""
_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)
_meter: Final = metrics.get_meter("otel_pipeline.worker", __version__)
_requests: Final = _meter.create_counter("comfyui.requests", "{request}", "Requests to ComfyUI by endpoint and status")
_duration: Final = _meter.create_histogram(
    "comfyui.request", "s", "Duration of requests to ComfyUI, up to the answer's head"
)
_carriers: Final = (TraceContextTextMapPropagator(), W3CBaggagePropagator())

_servers: Final[dict[str, None]] = {}
"""Bases of servers that were seen to be ComfyUI."""


@dataclass(eq=False, slots=True)
class Exchange:
    route: Route
    started_ns: int
    context: Context
    document: dict[str, Any] | None = None
    """The JSON object that is posted: the host's own, or read from its text."""
    prompt: Prompt | None = None
    chosen_id: str | None = None
    span: Span | None = None
    token: Any = None
    status: int = 0
    wants_body: bool = False
    wants_size: bool = False
    size: int = 0
    over: bool = False


@hook("comfyui.begin")
def begin(method: str, url: str, body: Callable[[], object]) -> Exchange | None:
    """`body` gives bytes, text or a JSON object, or None; it is called for methods that have a body."""
    method = method.upper()
    route = classify(method, url)
    if route is None and method not in _WRITES:
        return None
    if context.get_value(_INSIDE) or not is_instrumentation_enabled():
        return None
    if route is not None and (route.reads or method in _WRITES):
        exchange = _open(route, body)
        if exchange is not None:
            touch()
            exchange.token = context.attach(context.set_value(_INSIDE, exchange, exchange.context))
            return exchange
    if method in _WRITES:
        _message(method, url, body)
    return None


@hook("comfyui.inject")
def request_body(exchange: Exchange, body: object) -> bytes | str | dict[str, Any] | None:
    """The body with the trace context in its `extra_data`, of the type that was given; None to send what was given."""
    prompt, document = exchange.prompt, exchange.document
    if prompt is None or document is None or not prompt.classes:
        return None
    headers: dict[str, str] = {}
    for carrier in _carriers:
        carrier.inject(headers, prompt.context)
    if body is document:
        return bodies.with_context(document, headers)
    if isinstance(body, bytes | bytearray | str):
        return bodies.text_with_context(body, document, headers)
    return None


@hook("comfyui.leave")
def leave(exchange: Exchange) -> None:
    """Makes current again what was before."""
    token, exchange.token = exchange.token, None
    if token is not None:
        context.detach(token)


@hook("comfyui.failed")
def failed(exchange: Exchange, error: BaseException) -> None:
    """No answer came. The prompt failed, unless it was the host that gave up."""
    _measure(exchange, "error")
    exchange.over = True
    if exchange.prompt is not None:
        told = str(error).strip()[:256] or None
        outcome = FAILED if isinstance(error, Exception) else UNKNOWN
        prompts.end(exchange.prompt, End(outcome, error_name(error), told), time.time_ns(), live=True)
    _end_span(exchange, error)


@hook("comfyui.answered")
def answered(exchange: Exchange, status: int, header: Callable[[str], str | None]) -> None:
    """`header` looks one up by its lower-case name."""
    _measure(exchange, f"{max(status // 100, 2)}xx")
    exchange.status = status
    route, prompt = exchange.route, exchange.prompt
    if prompt is not None:
        exchange.wants_body = True
        prompt.span.set_attribute("http.response.status_code", status)
        prompt.server_nodes = (header(NODES_HEADER) or "") == "server"
        if status >= 400:
            prompt.expect(End(REFUSED, str(status)), time.time_ns())
        elif exchange.chosen_id is not None:
            prompts.accepted(prompt, Accepted(exchange.chosen_id, None))
    elif exchange.span is not None:
        exchange.span.set_attribute("http.response.status_code", status)
        if status >= 400:
            exchange.span.set_attribute(names.ERROR_TYPE, str(status))
            exchange.span.set_status(Status(StatusCode.ERROR))
        exchange.wants_size = True
    elif route.reads:
        exchange.wants_body = route.method == "GET" and polls.worth_reading(route, status)
    else:
        polls.command(route, exchange.document, status)


@hook("comfyui.received")
def received(exchange: Exchange, body: bytes) -> None:
    """The body of the answer, whole or as far as the host let it be seen."""
    if not exchange.wants_body or not isinstance(body, bytes | bytearray):
        return
    exchange.wants_body = False
    prompt, now_ns = exchange.prompt, time.time_ns()
    if prompt is None:
        polls.read(exchange.route, exchange.status, bytes(body))
        return
    told = answer(exchange.status, bytes(body))
    if isinstance(told, Accepted):
        prompts.accepted(prompt, told)
    elif told is not None:
        prompts.end(prompt, told, now_ns, live=True)
    elif exchange.chosen_id is None:
        prompts.end(prompt, End(UNKNOWN, message="the answer names no prompt"), now_ns, live=True)


@hook("comfyui.counted")
def counted(exchange: Exchange, size: int) -> None:
    """So many bytes more of a download were read."""
    exchange.size += size


@hook("comfyui.finished")
def finished(exchange: Exchange, error: BaseException | None = None) -> None:
    """The body was read, or the host lost interest in it. The first call counts."""
    if exchange.over:
        return
    exchange.over = True
    if exchange.span is not None and exchange.route.endpoint is Endpoint.VIEW:
        exchange.span.set_attribute("http.response.body.size", exchange.size)
        if error is None and exchange.status < 300:
            polls.downloaded(exchange.route, exchange.started_ns)
    _end_span(exchange, error)


def forget_servers() -> None:
    """For tests."""
    _servers.clear()


def _open(route: Route, body: Callable[[], object]) -> Exchange | None:
    """The exchange, if the server is a ComfyUI."""
    if route.method == "POST" and route.endpoint is Endpoint.PROMPT:
        return _open_prompt(route, body())
    if not _known(route) and not (route.reads and route.endpoint in UNMISTAKABLE):
        return None
    now_ns, ambient = time.time_ns(), context.get_current()
    if route.endpoint is Endpoint.VIEW and route.method == "GET":
        return _with_span("comfyui.download", route, polls.parent_of(route) or ambient, now_ns)
    if route.endpoint is Endpoint.UPLOAD and not route.reads:
        return _with_span("comfyui.upload", route, ambient, now_ns)
    if route.reads:
        prompts.polled(route)
        in_trace = route.endpoint is Endpoint.SOCKET and trace.get_current_span().is_recording()
        return Exchange(route, now_ns, ambient if in_trace else silenced(ambient))
    given = body()
    return Exchange(route, now_ns, ambient, given if isinstance(given, dict) else bodies.document_of(given))


def _open_prompt(route: Route, given: object) -> Exchange | None:
    document = given if isinstance(given, dict) else bodies.document_of(given)
    graph = bodies.graph_of(document)
    if not _known(route):
        if graph is None or settings().comfyui_urls:
            return None
        if len(_servers) >= SERVERS_MAX:
            del _servers[next(iter(_servers))]
        _servers[route.base] = None
    prompt = prompts.start(route, graph)
    chosen = graph.prompt_id if graph is not None else None
    return Exchange(route, prompt.started_ns, prompt.context, document, prompt, chosen)


def _known(route: Route) -> bool:
    configured = _configured(settings().comfyui_urls)
    if configured:
        return any(route.base == each or route.base.startswith(each + "/") for each in configured)
    return route.port == DEFAULT_PORT or route.base in _servers


@functools.cache
def _configured(urls: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(base_of, urls))


def _with_span(name: str, route: Route, within: Context, now_ns: int) -> Exchange:
    span = _tracer.start_span(name, within, SpanKind.CLIENT, start_time=now_ns)
    span.set_attributes({names.SERVER_ADDRESS: route.host, names.SERVER_PORT: route.port, names.BACKEND: route.backend})
    return Exchange(route, now_ns, silenced(trace.set_span_in_context(span, within)), span=span)


def _end_span(exchange: Exchange, error: BaseException | None) -> None:
    span = exchange.span
    if span is None:
        return
    if error is not None:
        span.set_attribute(names.ERROR_TYPE, error_name(error))
        if isinstance(error, Exception):
            span.set_status(Status(StatusCode.ERROR, str(error)[:256]))
    span.end()


def _measure(exchange: Exchange, status: str) -> None:
    labels = {"endpoint": exchange.route.endpoint.value}
    _requests.add(1, {**labels, "status": status})
    _duration.record((time.time_ns() - exchange.started_ns) / 1e9, labels)


def _message(method: str, url: str, body: Callable[[], object]) -> None:
    """What a job sends to other servers may say how it went."""
    job = current_job()
    if job is None:
        return
    given = body()
    if isinstance(given, bytes | bytearray | str) and not 2 <= len(given) <= MESSAGE_BYTES_MAX:
        return
    if given is not None:
        job.observe(outcomes.http_message(job, method, url, given))
