"""What is written on the spans of prompts and of their nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import names
from otel_pipeline.worker.comfyui.answers import FAILED, REFUSED, End
from otel_pipeline.worker.comfyui.bodies import Graph
from otel_pipeline.worker.comfyui.nodes import NodeRun
from otel_pipeline.worker.comfyui.outcome import Result
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.identity import graphs
from otel_pipeline.worker.settings import settings

if TYPE_CHECKING:
    from otel_pipeline.worker.comfyui.prompts import Prompt

CACHED_MAX: Final = 128
"""Cached nodes that are listed; their number is always right."""

_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)


def describe(prompt: Prompt, graph: Graph | None) -> None:
    """What is known at the POST, on the span and on the job."""
    route, job = prompt.route, prompt.job
    known: dict[str, AttributeValue] = {
        names.SERVER_ADDRESS: route.host,
        names.SERVER_PORT: route.port,
        names.BACKEND: route.backend,
    }
    if job is not None:
        job.set(names.BACKEND, route.backend)
    if graph is not None:
        known["comfyui.node.count"] = len(graph.classes)
        known.update(_read_graph(graph.nodes) or {})
    for name in (names.WORKFLOW, names.MODEL):
        of_job = job.fields.get(name) if job is not None else None
        if of_job is not None and (name == names.WORKFLOW or name not in known):
            known[name] = of_job
        elif job is not None and of_job is None and name in known:
            job.set(name, known[name])
    prompt.span.set_attributes(known)


@hook("comfyui.graph")
def _read_graph(nodes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Workflow, model and quantities, from the nodes."""
    known: dict[str, AttributeValue] = dict(graphs.graph_quantities(nodes))
    workflow, model = graphs.graph_hash(nodes), graphs.graph_model(nodes)
    if workflow:
        known[names.WORKFLOW] = workflow
    if model:
        known[names.MODEL] = model
    return known


def write(prompt: Prompt, end: End, result: Result) -> None:
    """Ends the prompt's span, and those of nodes that still ran."""
    bad = end.outcome == FAILED
    node_spans(prompt, prompt.nodes.finish(prompt.ended_ns, end.node if bad else None), end)
    prompt.span.set_attributes(_told(prompt, end, result))
    cached = _cached(prompt, end)
    if cached:
        prompt.span.add_event("comfyui.execution_cached", {"comfyui.nodes": cached[:CACHED_MAX]}, prompt.ended_ns)
    if bad:
        _exception(prompt.span, end, prompt.ended_ns)
    if end.outcome in {FAILED, REFUSED}:
        prompt.span.set_status(Status(StatusCode.ERROR, end.message or end.error_type))
    elif end.message:
        prompt.span.add_event("comfyui.ended", {"comfyui.reason": end.message}, prompt.ended_ns)
    prompt.span.end(prompt.ended_ns)
    prompt.classes = {}


def node_spans(prompt: Prompt, runs: Iterable[NodeRun], end: End | None = None) -> None:
    """A span for each node that is over; an event, if nodes are not to be spans; nothing, if the server has its own."""
    mode = settings().comfyui_node_spans
    if prompt.server_nodes and mode != "on":
        return
    for run in runs:
        kind = prompt.classes.get(run.node)
        told: dict[str, AttributeValue] = {"comfyui.node.id": run.node, "comfyui.node.timing": "client"}
        told.update({"comfyui.node.type": kind} if kind else {})
        told.update({"comfyui.node.parent_id": run.parent} if run.parent is not None else {})
        told.update({"comfyui.node.steps": run.steps} if run.steps > 1 else {})
        if mode == "off":
            told["comfyui.node.duration"] = (run.end_ns - run.start_ns) / 1e9
            prompt.span.add_event("comfyui.node", told, run.end_ns)
            continue
        name = f"comfyui.node {kind or 'expanded'}"
        span = _tracer.start_span(name, prompt.context, SpanKind.INTERNAL, told, start_time=run.start_ns)
        if run.failed:
            span.set_status(Status(StatusCode.ERROR, end.message if end is not None else None))
            span.set_attribute(names.ERROR_TYPE, (end.error_type if end is not None else None) or "_OTHER")
        span.end(run.end_ns)


def end_time(prompt: Prompt, end: End, now_ns: int) -> int:
    """When it ended, on the local clock, if somebody only asked afterwards.

    The server's clock may differ from ours, so its differences are used: between the creation of the prompt, which is
    our POST, and the end. Whatever does not lie between the POST and now is not believed.
    """
    estimate: float = now_ns
    if end.end_ms is not None:
        begun_ms = end.start_ms or prompt.begun_ms
        if end.create_ms is not None:
            estimate = prompt.started_ns + (end.end_ms - end.create_ms) * 1e6
        elif prompt.begun_ns and begun_ms:
            estimate = prompt.begun_ns + (end.end_ms - begun_ms) * 1e6
        else:
            estimate = end.end_ms * 1e6
    if not prompt.started_ns <= estimate <= now_ns:
        return max(now_ns, prompt.started_ns)
    return max(int(estimate), prompt.answered_ns)


def _told(prompt: Prompt, end: End, result: Result) -> dict[str, AttributeValue]:
    told: dict[str, AttributeValue | None] = {
        "comfyui.outcome": result.outcome,
        "comfyui.polls": prompt.polls,
        "comfyui.outputs": len(prompt.files) + prompt.frames,
        "comfyui.queue.wait": _queue_wait_s(prompt, end),
        "comfyui.execution.duration": _execution_s(prompt, end),
        "comfyui.validation.error_type": prompt.rejected.rejected if prompt.rejected else end.detail,
        names.ERROR_TYPE: result.error_type,
    }
    if end.cached is not None or prompt.begun_ns:
        told["comfyui.node.cached_count"] = len(_cached(prompt, end))
    if end.outcome == FAILED:
        told["comfyui.error.node.id"], told["comfyui.error.node.type"] = end.node, end.node_type
    return {name: value for name, value in told.items() if value is not None}


def _cached(prompt: Prompt, end: End) -> list[str]:
    return list(prompt.nodes.cached) or list(end.cached or ())


def _queue_wait_s(prompt: Prompt, end: End) -> float | None:
    begun_ms = end.start_ms or prompt.begun_ms
    if begun_ms and end.create_ms:
        return max(0.0, begun_ms - end.create_ms) / 1e3
    if prompt.begun_ns:
        return max(0, prompt.begun_ns - prompt.started_ns) / 1e9
    if begun_ms and prompt.started_ns <= begun_ms * 1e6 <= prompt.ended_ns:
        return (begun_ms * 1e6 - prompt.started_ns) / 1e9
    return None


def _execution_s(prompt: Prompt, end: End) -> float | None:
    begun_ms = end.start_ms or prompt.begun_ms
    if begun_ms and end.end_ms and end.end_ms >= begun_ms:
        return (end.end_ms - begun_ms) / 1e3
    return max(0, prompt.ended_ns - prompt.begun_ns) / 1e9 if prompt.begun_ns else None


def _exception(span: trace.Span, end: End, now_ns: int) -> None:
    told = {
        "exception.type": end.error_type,
        "exception.message": end.message,
        "exception.stacktrace": end.stack,
        "comfyui.node.id": end.node,
        "comfyui.node.type": end.node_type,
    }
    span.add_event("exception", {name: value for name, value in told.items() if value is not None}, now_ns)
