from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from otel_pipeline.worker import names
from otel_pipeline.worker.comfyui import runs, server
from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.process import lifecycle
from tests.support.comfyui_stub import SHAPES, load
from tests.support.worker_spans import Spans, attributes

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CARRIED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def linked(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"1": node(class_type, **inputs), "9": node("Out", text=["1", 0])}


@pytest.fixture(params=SHAPES)
def comfyui(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """ComfyUI's module `execution`, in each shape, with our hooks."""
    monkeypatch.setattr(server, "_queue", None)
    server._waiting.clear()
    module = load(request.param)
    server.patch_execution(module)
    return module


def run(comfyui: ModuleType, prompt: Mapping[str, Any], extra: dict[str, Any] | None = None, **more: Any) -> Any:
    executor = more.get("executor") or comfyui.PromptExecutor(None)
    outputs = [node_id for node_id, each in prompt.items() if each["class_type"] == "Out"]
    executor.execute(prompt, more.get("prompt_id", "p1"), extra if extra is not None else {}, outputs)
    return executor


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def identity(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def test_each_executed_node_is_a_span_below_that_of_the_prompt(comfyui: ModuleType, spans: Spans) -> None:
    run(comfyui, linked("Value", text="a"))
    prompt = spans.one("comfyui.execute")
    assert prompt.kind is SpanKind.CONSUMER
    assert attributes(prompt)[runs.PROMPT_OUTCOME] == "success"
    assert attributes(prompt)[runs.PROMPT_NODES_EXECUTED] == 2
    for kind, node_id in (("Value", "1"), ("Out", "9")):
        span = spans.one(f"comfyui.node {kind}")
        assert parent_of(span) == identity(prompt)
        assert attributes(span)[runs.NODE_ID] == node_id
        assert attributes(span)[runs.NODE_TYPE] == kind
        assert attributes(span)[runs.NODE_TIMING] == "server"
        assert attributes(span)[runs.PROMPT_ID] == "p1"


def test_context_and_baggage_in_extra_data_are_the_parent(comfyui: ModuleType, spans: Spans) -> None:
    run(comfyui, linked("Value", text="a"), {**CARRIED, "baggage": f"{names.JOB_ID}=job-7"})
    prompt = spans.one("comfyui.execute")
    assert f"{prompt.context.trace_id:032x}" == TRACE
    assert f"{parent_of(prompt):016x}" == PARENT
    assert [attributes(span)[names.JOB_ID] for span in spans.all()] == ["job-7"] * 3


def test_extra_data_stays_as_it_is(comfyui: ModuleType, spans: Spans) -> None:
    extra = {**CARRIED, "client_id": "c"}
    run(comfyui, linked("Value", text="a"), extra)
    assert extra == {**CARRIED, "client_id": "c"}
    assert len(spans.all()) == 3


def test_without_extra_data_the_context_of_the_request_is_the_parent(comfyui: ModuleType, spans: Spans) -> None:
    queue = comfyui.PromptQueue(None)
    with trace.get_tracer("test").start_as_current_span("POST /prompt"):
        token = context.attach(baggage.set_baggage(names.JOB_ID, "job-8"))
        queue.put((4, "p1", {}, {}, []))
        context.detach(token)
    run(comfyui, linked("Value", text="a"))
    prompt = spans.one("comfyui.execute")
    assert parent_of(prompt) == identity(spans.one("POST /prompt"))
    assert attributes(prompt)[names.JOB_ID] == "job-8"
    assert attributes(prompt)[runs.QUEUE_NUMBER] == 4
    assert attributes(prompt)[runs.PROMPT_QUEUE_WAIT_S] >= 0


def test_without_any_context_the_prompt_is_a_root(comfyui: ModuleType, spans: Spans) -> None:
    run(comfyui, linked("Value", text="a"), {"traceparent": "nonsense"})
    assert parent_of(spans.one("comfyui.execute")) is None


def test_a_program_that_runs_prompts_itself_is_the_parent(comfyui: ModuleType, spans: Spans) -> None:
    with trace.get_tracer("test").start_as_current_span("job") as job:
        run(comfyui, linked("Value", text="a"))
        assert trace.get_current_span() is job
    assert parent_of(spans.one("comfyui.execute")) == identity(spans.one("job"))


def test_the_wait_is_known_from_the_time_of_creation(comfyui: ModuleType, spans: Spans) -> None:
    run(comfyui, linked("Value", text="a"), {"create_time": int(time.time() * 1000) - 5000})
    assert 4.5 < attributes(spans.one("comfyui.execute"))[runs.PROMPT_QUEUE_WAIT_S] < 60


def test_cached_nodes_are_listed_and_have_no_span(comfyui: ModuleType, spans: Spans) -> None:
    executor = run(comfyui, linked("Value", text="a"))
    run(comfyui, {**linked("Value", text="a"), "10": node("Out", text="b")}, prompt_id="p2", executor=executor)
    prompt = spans.named("comfyui.execute")[1]
    assert attributes(prompt)[runs.PROMPT_NODES_CACHED] == 2
    assert attributes(prompt)[runs.PROMPT_CACHED_IDS] == ("1", "9")
    assert attributes(prompt)[runs.PROMPT_NODES_EXECUTED] == 1
    assert [attributes(span)[runs.NODE_ID] for span in spans.named("comfyui.node Out")] == ["9", "10"]


def test_a_node_whose_cached_result_is_gone_has_a_span(comfyui: ModuleType, spans: Spans) -> None:
    executor = run(comfyui, linked("Value", text="a"))
    comfyui.during.append(lambda _node: None)
    add_message = executor.add_message

    def forget(event: str, data: dict[str, Any], broadcast: bool) -> None:  # noqa: FBT001
        add_message(event, data, broadcast)
        if event == "execution_cached":
            executor.caches.outputs.clear()

    executor.add_message = forget
    run(comfyui, linked("Value", text="a"), prompt_id="p2", executor=executor)
    assert len(spans.named("comfyui.node Value")) == 2


def test_a_failed_node_and_its_prompt_are_errors(comfyui: ModuleType, spans: Spans) -> None:
    text = "x" * 2000
    run(comfyui, linked("Fail", text=text, other="what the user wrote"))
    failed, prompt = spans.one("comfyui.node Fail"), spans.one("comfyui.execute")
    for span in (failed, prompt):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)[names.ERROR_TYPE] == "ValueError"
    assert attributes(prompt)[runs.PROMPT_OUTCOME] == "failed"
    assert attributes(prompt)[runs.FAILED_NODE_ID] == "1"
    assert attributes(prompt)[runs.FAILED_NODE_TYPE] == "Fail"
    (event,) = failed.events
    assert event.name == "exception"
    assert dict(event.attributes or {}) == {
        "exception.type": "ValueError",
        "exception.message": "x" * runs.MESSAGE_MAX,
        "exception.stacktrace": "  File x\n",
    }
    assert "what the user wrote" not in "".join(span.to_json() for span in spans.all())


def test_an_interrupted_prompt_is_no_error(comfyui: ModuleType, spans: Spans) -> None:
    comfyui.interrupted.set()
    run(comfyui, linked("Slow", text="a"))
    prompt = spans.one("comfyui.execute")
    assert attributes(prompt)[runs.PROMPT_OUTCOME] == "interrupted"
    assert attributes(spans.one("comfyui.node Slow"))[runs.NODE_OUTCOME] == "interrupted"
    assert {span.status.status_code for span in spans.all()} == {StatusCode.UNSET}


def test_an_asynchronous_node_is_one_span_around_what_it_does(comfyui: ModuleType, spans: Spans) -> None:
    tracer = trace.get_tracer("test")
    comfyui.during.append(lambda node_id: tracer.start_span(f"in {node_id}").end())
    run(comfyui, linked("Async", text="a"))
    span = spans.one("comfyui.node Async")
    assert parent_of(spans.one("in 1 later")) == identity(span)
    assert parent_of(spans.one("in 9")) == identity(spans.one("comfyui.node Out"))
    assert attributes(span)[runs.NODE_BUSY_S] >= 0.02


def test_an_asynchronous_node_may_fail_later(comfyui: ModuleType, spans: Spans) -> None:
    run(comfyui, linked("Async", text="fail"))
    assert attributes(spans.one("comfyui.node Async"))[names.ERROR_TYPE] == "RuntimeError"
    assert attributes(spans.one("comfyui.execute"))[runs.PROMPT_OUTCOME] == "failed"


def test_a_lazy_node_is_one_span_and_not_busy_while_it_waits(comfyui: ModuleType, spans: Spans) -> None:
    prompt = {
        "1": node("Async", text="a"),
        "2": node("Value", text="b"),
        "3": node("Lazy", a=["1", 0], b=["2", 0], which="a"),
        "9": node("Out", text=["3", 0]),
    }
    run(comfyui, prompt)
    lazy, waited_for = spans.one("comfyui.node Lazy"), spans.one("comfyui.node Async")
    assert lazy.start_time <= waited_for.start_time
    assert waited_for.end_time <= lazy.end_time
    assert attributes(lazy)[runs.NODE_BUSY_S] < 0.02
    assert parent_of(waited_for) == identity(spans.one("comfyui.execute"))
    assert spans.named("comfyui.node Value") == []


def test_what_a_node_expands_to_is_below_it(comfyui: ModuleType, spans: Spans) -> None:
    run(comfyui, linked("Expand", text="a"))
    outer = spans.one("comfyui.node Expand")
    inner = spans.named("comfyui.node Value")
    assert [parent_of(span) for span in inner] == [identity(outer)] * 2
    assert {attributes(span)[runs.NODE_ID] for span in inner} == {"1.0.0.1", "1.0.0.2"}
    assert {attributes(span)[runs.NODE_PARENT_ID] for span in inner} == {"1"}


def test_a_node_that_was_waiting_when_the_prompt_failed_is_unfinished(comfyui: ModuleType, spans: Spans) -> None:
    run(comfyui, linked("ExpandFail", text="a"))
    outer = spans.one("comfyui.node ExpandFail")
    assert attributes(outer)[runs.NODE_OUTCOME] == "unfinished"
    assert outer.status.status_code is StatusCode.UNSET
    assert parent_of(spans.one("comfyui.node Fail")) == identity(outer)
    assert attributes(spans.one("comfyui.execute"))[runs.FAILED_NODE_ID] == "1"


def test_an_exception_of_the_executor_itself_passes_and_is_recorded(comfyui: ModuleType, spans: Spans) -> None:
    with pytest.raises(KeyError):
        run(comfyui, {"9": node("Out", text=["missing", 0])})
    assert attributes(spans.one("comfyui.execute"))[names.ERROR_TYPE] == "KeyError"
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_prompt_that_runs_when_the_process_ends_is_told_of(comfyui: ModuleType, spans: Spans) -> None:
    comfyui.during.append(lambda _node: [close() for close in lifecycle.closing])
    run(comfyui, linked("Value", text="a"))
    prompt = spans.one("comfyui.execute")
    assert attributes(prompt)[names.ERROR_TYPE] == "terminated"
    assert attributes(spans.one("comfyui.node Value"))[runs.NODE_OUTCOME] == "unfinished"
    assert spans.named("comfyui.node Out") == []


def test_the_functions_stay_of_their_kind(comfyui: ModuleType) -> None:
    plain = load(comfyui.SHAPE)
    for patched, original in (
        (comfyui.execute, plain.execute),
        (comfyui.PromptExecutor.execute, plain.PromptExecutor.execute),
        (comfyui.PromptExecutor.execute_async, plain.PromptExecutor.execute_async),
        (comfyui.PromptExecutor.add_message, plain.PromptExecutor.add_message),
        (comfyui.PromptQueue.put, plain.PromptQueue.put),
    ):
        assert inspect.signature(patched) == inspect.signature(original)
        assert inspect.iscoroutinefunction(patched) == inspect.iscoroutinefunction(original)


@pytest.mark.parametrize("name", sorted(name for name in HOOKS if name.startswith("comfyui_server.")))
def test_a_fault_in_a_hook_changes_nothing_of_what_comfyui_does(
    comfyui: ModuleType, spans: Spans, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def story(module: ModuleType) -> list[Any]:
        queue, executor = module.PromptQueue(None), module.PromptExecutor(None)
        told: list[Any] = []
        for number, kind in enumerate(("Expand", "Async", "Fail")):
            prompt = linked(kind, text="a")
            queue.put((number, "p1", prompt, {}, ["9"]))
            run(module, prompt, executor=executor)
            told += [(event, data.get("node_id")) for event, data in executor.status_messages]
        return [told, [item[1] for item in queue.queue], executor.caches.outputs]

    monkeypatch.setattr(HOOKS[name], "fault", RuntimeError("injected"))
    assert story(comfyui) == story(load(comfyui.SHAPE))
    assert spans is not None


@pytest.mark.parametrize("attribute", ["PromptExecutor", "PromptQueue"])
def test_another_module_named_execution_is_left_alone(attribute: str) -> None:
    module = load("0.26.0")
    execute = module.execute
    delattr(module, attribute)
    server.patch_execution(module)
    assert module.execute is execute


def test_another_module_named_server_is_left_alone() -> None:
    class PromptServer:
        pass

    before = PromptServer.__init__
    module = ModuleType("server")
    module.PromptServer = PromptServer  # type: ignore[attr-defined]
    server.patch_server(module)
    server.patch_server(ModuleType("server"))
    assert PromptServer.__init__ is before


def test_a_wrapper_without_names_around_execute_is_seen_through(spans: Spans) -> None:
    module = load("0.26.0")
    inner = module.execute

    async def anonymous(*args: Any, **kwargs: Any) -> Any:
        return await inner(*args, **kwargs)

    module.execute = anonymous
    server.patch_execution(module)
    run(module, linked("Value", text="a"))
    assert attributes(spans.one("comfyui.node Value"))[runs.NODE_ID] == "1"


def test_a_synchronous_executor_of_older_versions_is_followed(spans: Spans) -> None:
    module = ModuleType("execution")
    result = SimpleNamespace(name="SUCCESS")
    prompt = linked("Value", text="a")
    dynprompt = load("0.26.0").DynamicPrompt(prompt)

    def execute(server, dynprompt, caches, current_item, extra_data, executed, prompt_id, execution_list, pending):  # type: ignore[no-untyped-def]  # noqa: ARG001, PLR0917
        executed.add(current_item)
        return result, None, None

    class PromptExecutor:
        success = True

        def execute(self, prompt: Any, prompt_id: str, extra_data: Any = None) -> None:
            for node_id in prompt:
                module.execute(None, dynprompt, None, node_id, extra_data, set(), prompt_id, None, {})

    vars(module).update(
        execute=execute,
        PromptExecutor=PromptExecutor,
        PromptQueue=object,
        ExecutionResult=type("ExecutionResult", (), {}),
    )
    server.patch_execution(module)
    PromptExecutor().execute(prompt, "p1", {})
    assert {span.name for span in spans.all()} == {"comfyui.execute", "comfyui.node Value", "comfyui.node Out"}


def test_failure_is_told_from_success_without_messages(spans: Spans) -> None:
    class PromptExecutor:
        success = True

        def execute(self, prompt: Any, prompt_id: str) -> None:  # noqa: ARG002
            self.success = False

    module = ModuleType("execution")
    vars(module).update(PromptExecutor=PromptExecutor, PromptQueue=object)
    server.patch_execution(module)
    PromptExecutor().execute({}, "p1")
    assert attributes(spans.one("comfyui.execute"))[runs.PROMPT_OUTCOME] == "failed"


def test_spans_of_nodes_are_bounded(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "NODES_MAX", 3)
    module = load("0.26.0")
    server.patch_execution(module)
    run(module, {str(each): node("Out", text=str(each)) for each in range(10)})
    assert len(spans.named("comfyui.node Out")) == 3
    assert attributes(spans.one("comfyui.execute"))[runs.PROMPT_NODES_EXECUTED] == 10


def test_waiting_prompts_are_bounded(comfyui: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WAITING_MAX", 5)
    queue = comfyui.PromptQueue(None)
    for number in range(20):
        queue.put((number, f"p{number}", {}, {}, []))
    assert list(server._waiting) == [f"p{number}" for number in range(15, 20)]


def test_a_waiting_prompt_keeps_no_more_than_ids_and_baggage(comfyui: ModuleType, spans: Spans) -> None:
    token = context.attach(context.set_value("large", object(), baggage.set_baggage("k", "v")))
    with trace.get_tracer("test").start_as_current_span("POST"):
        comfyui.PromptQueue(None).put((1, "p1", {}, {}, []))
    context.detach(token)
    kept = server._waiting["p1"].context
    assert kept is not None
    assert context.get_value("large", kept) is None
    assert baggage.get_all(kept) == {"k": "v"}
    assert trace.get_current_span(kept).get_span_context() == spans.one("POST").context


def test_the_size_of_the_queue_is_observed(comfyui: ModuleType) -> None:
    queue = comfyui.PromptQueue(None)
    for number in range(3):
        queue.put((number, f"p{number}", {}, {}, []))
    queue.currently_running["p0"] = queue.queue.pop()
    sizes = {(each.attributes or {})["status"]: each.value for each in server._observe(CallbackOptions())}
    assert (sizes["waiting"], sizes["active"]) == (2, 1)
    assert sizes.keys() == {"waiting", "active", "completed", "failed"}


# -- the middleware ----------------------------------------------------------------------------------------------------


class Request(SimpleNamespace):
    method: str = "POST"
    path: str = "/prompt"


async def _seen(_request: Any) -> Any:
    return SimpleNamespace(headers={}, seen=context.get_current())


def through(request: Any, handler: Callable[[Any], Any] = _seen) -> Any:
    return asyncio.run(server._middleware(request, handler))


@pytest.mark.parametrize("path", ["/prompt", "/api/prompt", "/proxy/api/prompt/"])
def test_the_context_of_the_headers_is_current_in_the_request(path: str, spans: Spans) -> None:
    headers = {**CARRIED, "baggage": f"{names.JOB_ID}=j", server.CORRELATION_HEADER: "c-1"}
    response = through(Request(path=path, headers=headers))
    assert response.headers == {server.NODES_HEADER: "server"}
    assert f"{trace.get_current_span(response.seen).get_span_context().trace_id:032x}" == TRACE
    assert baggage.get_all(response.seen) == {names.JOB_ID: "j", names.CORRELATION_ID: "c-1"}
    assert spans.all() == []


def test_an_instrumented_server_keeps_its_own_span(spans: Spans) -> None:
    with trace.get_tracer("test").start_as_current_span("POST /prompt"):
        response = through(Request(headers=CARRIED))
    assert trace.get_current_span(response.seen).get_span_context() == spans.one("POST /prompt").context


@pytest.mark.parametrize("request_", [Request(method="GET"), Request(path="/history/x"), Request(path="/queue")])
def test_other_requests_pass_untouched(request_: Any) -> None:
    assert through(request_).headers == {}


def test_an_exception_of_the_handler_passes(spans: Spans) -> None:
    async def refuse(_request: Any) -> Any:
        raise PermissionError

    with pytest.raises(PermissionError):
        through(Request(headers=CARRIED), refuse)
    assert trace.get_current_span(Context()) is trace.INVALID_SPAN
    assert spans.all() == []
