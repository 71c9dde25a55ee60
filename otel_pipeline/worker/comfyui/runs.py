"""What is recorded of a prompt while ComfyUI's server runs it: one span for the run, one for each node that executed.

It owns the runs that are under way and never looks at a node's inputs, outputs or caches. A node that asks to be called
again (lazy input, asynchronous node, subgraph) keeps one span open until it is done; the nodes it expanded into are its
children. A node whose result was cached is counted and listed, and has no span.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from otel_pipeline import __version__
from otel_pipeline.worker import names
from otel_pipeline.worker.flow import error_name
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.redaction import MESSAGE_MAX as STATUS_MAX

RUNS_MAX: Final = 64
"""Prompts that run at once in one process: ComfyUI runs one; the oldest is forgotten."""
NODES_MAX: Final = 2_000
"""Node spans of one prompt: a loop built from expanding nodes has no end of its own. The rest is counted."""
LISTED_MAX: Final = 128
"""Ids of cached nodes in one attribute."""
MESSAGE_MAX: Final = 512
"""Characters of an exception's message: it may quote what the user wrote."""
STACKTRACE_MAX: Final = 8_192
"""Characters of a stack trace, the innermost frames."""
BUCKETS_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

PROMPT_ID: Final = "comfyui.prompt.id"
PROMPT_OUTCOME: Final = "comfyui.outcome"
PROMPT_QUEUE_WAIT_S: Final = "comfyui.queue.wait"
PROMPT_NODES: Final = "comfyui.node.count"
PROMPT_NODES_EXECUTED: Final = "comfyui.node.executed_count"
PROMPT_NODES_CACHED: Final = "comfyui.node.cached_count"
PROMPT_CACHED_IDS: Final = "comfyui.node.cached_ids"
QUEUE_NUMBER: Final = "comfyui.queue.number"
NODE_ID: Final = "comfyui.node.id"
NODE_TYPE: Final = "comfyui.node.type"
NODE_PARENT_ID: Final = "comfyui.node.parent_id"
NODE_CACHED: Final = "comfyui.node.cached"
NODE_OUTCOME: Final = "comfyui.node.outcome"
NODE_TIMING: Final = "comfyui.node.timing"
NODE_BUSY_S: Final = "comfyui.node.busy"
"""Seconds that the node itself worked, where its span is longer because it waited for other nodes."""
FAILED_NODE_ID: Final = "comfyui.error.node.id"
FAILED_NODE_TYPE: Final = "comfyui.error.node.type"

_tracer: Final = trace.get_tracer("otel_pipeline.worker", __version__)
_meter: Final = metrics.get_meter("otel_pipeline.worker", __version__)
_durations: Final = _meter.create_histogram(
    "comfyui.node.duration", "s", "Time that a node worked.", explicit_bucket_boundaries_advisory=BUCKETS_S
)
_nodes: Final = _meter.create_counter("comfyui.node.executions", "{node}", "Nodes that executed, by outcome.")
_cached: Final = _meter.create_counter("comfyui.node.cached", "{node}", "Nodes whose result was in the cache.")
_prompts: Final = _meter.create_counter("comfyui.prompt.executions", "{prompt}", "Prompts that ran, by outcome.")


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    UNFINISHED = "unfinished"
    """A node that was still waiting for others when its prompt ended."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a node or a prompt did not succeed."""

    type: str
    message: str
    stacktrace: str = ""
    interrupted: bool = False
    node_id: str | None = None
    node_type: str | None = None

    @property
    def outcome(self) -> Outcome:
        return Outcome.INTERRUPTED if self.interrupted else Outcome.FAILED


@dataclass(eq=False, slots=True)
class Node:
    """A node that began and is not done."""

    id: str
    type: str
    span: Span
    context: Context
    busy_ns: int = 0
    """In the calls before this one."""
    left_ns: int = 0
    """When the last call said that it is not done."""
    working: bool = False
    """It goes on by itself between the calls: an asynchronous node."""


@dataclass(eq=False, slots=True)
class Run:
    """A prompt that runs."""

    prompt_id: str
    span: Span
    context: Context
    cached: frozenset[str] = frozenset()
    open: dict[str, Node] = field(default_factory=dict)
    executed: int = 0
    fault: Fault | None = None
    succeeded: bool | None = None
    token: Any = None
    over: bool = False


@dataclass(eq=False, slots=True)
class Call:
    """One call of the function that executes a node."""

    run: Run
    node_id: str
    dynprompt: Any
    executed: Container[str]
    pending_async: Container[str]
    started_ns: int
    node: Node | None
    token: Any


_running: Final[dict[str, Run]] = {}
finished: Final[Counter[Outcome]] = Counter()
"""Prompts of this process that are over."""


def run_of(prompt_id: object) -> Run | None:
    return _running.get(prompt_id) if isinstance(prompt_id, str) else None


def begin_run(
    prompt_id: str, parent: Context | None, prompt: object, attributes: Mapping[str, AttributeValue | None]
) -> Run:
    """Begins the prompt's span and makes it current."""
    known: dict[str, AttributeValue] = {key: value for key, value in attributes.items() if value is not None}
    known[PROMPT_ID] = prompt_id
    if isinstance(prompt, Mapping):
        known[PROMPT_NODES] = len(prompt)
    span = _tracer.start_span("comfyui.execute", parent, SpanKind.CONSUMER, known)
    within = trace.set_span_in_context(span, parent)
    run = Run(prompt_id, span, within, token=context.attach(within))
    while len(_running) >= RUNS_MAX:
        del _running[next(iter(_running))]
    _running[prompt_id] = run
    return run


def cached_nodes(run: Run, ids: Iterable[object]) -> None:
    """ComfyUI found the results of these nodes in its cache."""
    known = [str(each) for each in ids]
    run.cached = frozenset(known)
    run.span.set_attribute(PROMPT_NODES_CACHED, len(known))
    if known:
        run.span.set_attribute(PROMPT_CACHED_IDS, known[:LISTED_MAX])
        _cached.add(len(known))


def end_run(run: Run, error: BaseException | None, succeeded: bool | None) -> None:  # noqa: FBT001  three states
    """Ends the prompt's span with what was seen of it; `succeeded` counts if ComfyUI said nothing else."""
    context.detach(run.token)
    fault = fault_of(error) if error is not None else run.fault
    if fault is None and (succeeded if run.succeeded is None else run.succeeded) is False:
        fault = Fault("_OTHER", "the prompt did not succeed")
    _finish(run, fault)


@hook("comfyui_server.close_all")
def close_all() -> None:
    """The process ends in mid prompt, in whichever thread this is."""
    for run in list(_running.values()):
        _finish(run, Fault("terminated", "the server was stopped"))


def _finish(run: Run, fault: Fault | None) -> None:
    if _running.get(run.prompt_id) is run:
        del _running[run.prompt_id]
    if run.over:
        return
    run.over = True
    for node in list(run.open.values()):
        _end_node(run, node, Outcome.UNFINISHED, time.time_ns())
    outcome = fault.outcome if fault is not None else Outcome.SUCCESS
    run.span.set_attribute(PROMPT_OUTCOME, outcome.value)
    run.span.set_attribute(PROMPT_NODES_EXECUTED, run.executed)
    if fault is not None:
        _describe_fault(run, fault)
    run.span.end()
    finished[outcome] += 1
    _prompts.add(1, {PROMPT_OUTCOME: outcome.value})


def enter_node(run: Run, node_id: str, dynprompt: Any, executed: Container[str], pending_async: Container[str]) -> Call:
    """ComfyUI calls a node, for the first time or again. Its span is current during the call."""
    now_ns = time.time_ns()
    node = run.open.get(node_id)
    if node is None and node_id not in run.cached:
        node = _begin_node(run, node_id, dynprompt, now_ns)
    if node is not None and node.working:
        node.busy_ns += now_ns - node.left_ns
        node.working = False
    token = context.attach(node.context) if node is not None else None
    return Call(run, node_id, dynprompt, executed, pending_async, now_ns, node, token)


def leave_node(call: Call, state: str, fault: Fault | None) -> None:
    """The call is over. `state` is the name of ComfyUI's ExecutionResult."""
    if call.token is not None:
        context.detach(call.token)
    now_ns, run = time.time_ns(), call.run
    cached = state == "SUCCESS" and call.node_id not in call.executed
    node = call.node
    if node is None:
        # Its result was in the cache when the prompt began. Unless that is gone by now, there is nothing to tell.
        node = None if cached else _begin_node(run, call.node_id, call.dynprompt, call.started_ns)
    if node is None:
        run.executed += not cached and state != "PENDING"
        return
    node.busy_ns += now_ns - call.started_ns
    if state == "PENDING" and fault is None:
        node.left_ns, node.working = now_ns, call.node_id in call.pending_async
        return
    if cached:
        node.span.set_attributes({NODE_CACHED: True})
    _end_node(run, node, fault.outcome if fault is not None else Outcome.SUCCESS, now_ns, fault, cached=cached)


def fault_of(error: BaseException, details: Mapping[str, Any] | None = None) -> Fault:
    """What is told of an exception; `details` is ComfyUI's own account of it, of which the inputs are left out."""
    interrupted = any(kind.__name__ in _INTERRUPTS for kind in type(error).__mro__)
    trace_lines = details.get("traceback") if details else None
    stacktrace = "".join(trace_lines) if isinstance(trace_lines, list) else ""
    return Fault(error_name(error), str(error)[:MESSAGE_MAX], stacktrace[-STACKTRACE_MAX:], interrupted)


_INTERRUPTS: Final = frozenset({"InterruptProcessingException", "CancelledError", "KeyboardInterrupt"})


def _begin_node(run: Run, node_id: str, dynprompt: Any, start_ns: int) -> Node | None:
    if run.executed >= NODES_MAX:
        return None
    kind = str(dynprompt.get_node(node_id)["class_type"])
    parent_id = dynprompt.get_parent_node_id(node_id)
    parent = run.open.get(parent_id) if parent_id is not None else None
    around = parent.context if parent is not None else run.context
    known: dict[str, AttributeValue] = {
        PROMPT_ID: run.prompt_id,
        NODE_ID: node_id,
        NODE_TYPE: kind,
        NODE_TIMING: "server",
    }
    if parent_id is not None:
        known[NODE_PARENT_ID] = str(parent_id)
    span = _tracer.start_span(f"comfyui.node {kind}", around, attributes=known, start_time=start_ns)
    node = Node(node_id, kind, span, trace.set_span_in_context(span, around))
    run.open[node_id] = node
    run.executed += 1
    return node


def _end_node(
    run: Run, node: Node, outcome: Outcome, end_ns: int, fault: Fault | None = None, *, cached: bool = False
) -> None:
    run.open.pop(node.id, None)
    if cached:
        run.executed -= 1
        _cached.add(1)
    else:
        _durations.record(node.busy_ns / 1e9, {NODE_TYPE: node.type})
        _nodes.add(1, {NODE_TYPE: node.type, NODE_OUTCOME: outcome.value})
    span = node.span
    if outcome is not Outcome.SUCCESS:
        span.set_attribute(NODE_OUTCOME, outcome.value)
    if node.left_ns:
        span.set_attribute(NODE_BUSY_S, node.busy_ns / 1e9)
    if fault is not None and outcome is Outcome.FAILED:
        event = {"exception.type": fault.type, "exception.message": fault.message}
        if fault.stacktrace:
            event["exception.stacktrace"] = fault.stacktrace
        span.add_event("exception", event, end_ns)
        span.set_attribute(names.ERROR_TYPE, fault.type)
        span.set_status(Status(StatusCode.ERROR, fault.message[:STATUS_MAX]))
    span.end(end_ns)


def _describe_fault(run: Run, fault: Fault) -> None:
    if fault.node_id is not None:
        run.span.set_attribute(FAILED_NODE_ID, fault.node_id)
    if fault.node_type is not None:
        run.span.set_attribute(FAILED_NODE_TYPE, fault.node_type)
    if not fault.interrupted:
        run.span.set_attribute(names.ERROR_TYPE, fault.type)
        run.span.set_status(Status(StatusCode.ERROR, fault.message[:STATUS_MAX]))
