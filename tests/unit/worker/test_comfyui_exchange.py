"""One exchange with a server, by the hooks that all client libraries call."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled, suppress_instrumentation

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.comfyui import exchange as http
from otel_pipeline.worker.comfyui import report
from otel_pipeline.worker.comfyui.exchange import Exchange
from otel_pipeline.worker.comfyui.prompts import AGE_S_MAX, prompts
from otel_pipeline.worker.comfyui.sockets import frame
from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.jobs import Job, Origin, job_end, job_start
from otel_pipeline.worker.settings import read
from tests.support.worker_spans import Spans, attributes

URL = "http://gpu-1:8000"
NODES = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl.safetensors"}},
    "9": {"class_type": "SaveImage", "inputs": {}},
}
BODY = json.dumps({"prompt": NODES, "client_id": "c"})
TRACER = trace.get_tracer("tests")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    prompts.forget()
    http.forget_servers()
    yield
    prompts.forget()
    http.forget_servers()


def exchange(method: str, path: str, body: object = None, *, url: str = URL) -> Exchange | None:
    return http.begin(method, url + path, lambda: body)


def answer(begun: Exchange | None, status: int, body: object = None, **headers: str) -> None:
    assert begun is not None
    http.leave(begun)
    http.answered(begun, status, headers.get)
    if begun.wants_body:
        http.received(begun, body if isinstance(body, bytes) else json.dumps(body).encode())
    http.finished(begun)


def post(prompt_id: str = "p", status: int = 200, nodes: Any = None, **answered: Any) -> None:
    body = json.dumps({"prompt": nodes or NODES})
    answer(exchange("POST", "/prompt", body), status, {"prompt_id": prompt_id, "number": 1, **answered})


def tell(kind: str, prompt_id: str = "p", socket: object = None, **data: Any) -> None:
    frame(socket or post, json.dumps({"type": kind, "data": {"prompt_id": prompt_id, **data}}))


def job() -> Job:
    return job_start(Origin("redis", "q"), job_id="j")


def test_the_prompt_span_is_current_during_the_post_and_not_after(spans: Spans) -> None:
    before = context.get_current()
    begun = exchange("POST", "/prompt", BODY)
    assert begun is not None
    assert begun.prompt is not None
    assert trace.get_current_span() is begun.prompt.span
    assert is_http_instrumentation_enabled()
    http.leave(begun)
    assert context.get_current() == before
    assert spans.all() == []


def test_a_prompt_is_described_at_its_post(spans: Spans) -> None:
    with TRACER.start_as_current_span("stage") as stage:
        post()
    tell("execution_success")
    span = spans.one("comfyui.prompt")
    told = attributes(span)
    assert span.parent is not None
    assert span.parent.span_id == stage.get_span_context().span_id
    assert told["comfyui.prompt.id"] == "p"
    assert told["comfyui.queue.number"] == 1
    assert told["comfyui.node.count"] == 2
    assert told["gen_ai.request.model"] == "sd_xl.safetensors"
    assert told["otel_pipeline.backend.name"] == "gpu-1:8000"
    assert told["otel_pipeline.workflow.name"].startswith("graph-")


def test_the_job_learns_backend_workflow_and_model_but_keeps_what_it_knows(spans: Spans) -> None:
    first = job_start(Origin("redis", "q"), job_id="j", attributes={"otel_pipeline.workflow.name": "portrait"})
    post()
    tell("execution_success")
    job_end(first)
    told = attributes(spans.one("process q"))
    assert told["otel_pipeline.backend.name"] == "gpu-1:8000"
    assert told["otel_pipeline.workflow.name"] == "portrait"
    assert told["gen_ai.request.model"] == "sd_xl.safetensors"
    assert attributes(spans.one("comfyui.prompt"))["otel_pipeline.workflow.name"] == "portrait"


def test_a_server_is_told_by_the_shape_of_what_is_posted_to_it(spans: Spans) -> None:
    assert exchange("POST", "/prompt", json.dumps({"prompt": "a cat"})) is None
    assert exchange("GET", "/history/p") is None
    assert exchange("GET", "/queue") is None
    post()
    begun = exchange("GET", "/api/history/p")
    assert begun is not None
    assert not is_http_instrumentation_enabled()
    http.leave(begun)
    assert is_http_instrumentation_enabled()
    assert exchange("GET", "/queue", url="http://gpu-2:8000") is None
    assert len(spans.all()) == 0


def test_what_only_comfyui_has_needs_no_proof() -> None:
    for url in ("http://gpu-1:9/system_stats", "http://gpu-1:9/api/object_info/X", "http://gpu-1:8188/queue"):
        begun = http.begin("GET", url, lambda: None)
        assert begun is not None
        http.leave(begun)


def test_configured_servers_are_the_only_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = read({"OTEL_PIPELINE_COMFYUI_URLS": "https://gw.example/comfy, gpu-7:80"})
    monkeypatch.setattr(http, "settings", lambda: chosen)
    assert exchange("POST", "/prompt", BODY) is None
    for url in ("https://gw.example/comfy/queue", "https://gw.example/comfy/api/queue", "http://gpu-7/queue"):
        begun = http.begin("GET", url, lambda: None)
        assert begun is not None, url
        http.leave(begun)
    assert http.begin("GET", "https://gw.example/other/queue", lambda: None) is None


def test_exchanges_within_an_exchange_and_suppressed_ones_are_left_alone() -> None:
    begun = exchange("POST", "/prompt", BODY)
    assert begun is not None
    assert exchange("POST", "/prompt", BODY) is None
    http.leave(begun)
    with suppress_instrumentation():
        assert exchange("POST", "/prompt", BODY) is None


def test_a_refused_connection_is_a_failed_prompt(spans: Spans) -> None:
    working = job()
    begun = exchange("POST", "/prompt", BODY)
    assert begun is not None
    http.failed(begun, ConnectionRefusedError("no route"))
    http.leave(begun)
    job_end(working)
    span = spans.one("comfyui.prompt")
    assert span.status.description == "no route"
    assert attributes(span)["error.type"] == "ConnectionRefusedError"
    assert attributes(spans.one("process q"))["otel_pipeline.job.outcome"] == "failed"


def test_a_refused_connection_made_good_elsewhere_does_not_fail_the_job(spans: Spans) -> None:
    working = job()
    begun = exchange("POST", "/prompt", BODY)
    assert begun is not None
    http.failed(begun, ConnectionRefusedError("no route"))
    http.leave(begun)
    answer(exchange("POST", "/prompt", BODY, url="http://gpu-2:8000"), 200, {"prompt_id": "p"})
    tell("execution_success")
    job_end(working)
    told = attributes(spans.one("process q"))
    assert (told["otel_pipeline.job.outcome"], told["otel_pipeline.job.outcome_source"]) == ("completed", "end")
    assert told["otel_pipeline.backend.name"] == "gpu-2:8000"


def test_an_answer_that_nobody_reads_still_tells_a_refusal(spans: Spans) -> None:
    working = job()
    begun = exchange("POST", "/prompt", BODY)
    assert begun is not None
    http.leave(begun)
    http.answered(begun, 400, lambda _: None)
    assert spans.named("comfyui.prompt") == []
    job_end(working)
    told = attributes(spans.one("comfyui.prompt"))
    assert (told["comfyui.outcome"], told["error.type"]) == ("refused", "400")


def test_messages_that_come_before_the_answer_was_read_count(spans: Spans) -> None:
    begun = exchange("POST", "/prompt", BODY)
    tell("execution_start", timestamp=1000)
    tell("execution_cached", nodes=["1"])
    tell("executing", node="9")
    tell("executed", node="9", output={"images": [{"filename": "a.png", "subfolder": ""}]})
    tell("execution_success", timestamp=1500)
    assert spans.all() == []
    answer(begun, 200, {"prompt_id": "p"})
    told = attributes(spans.one("comfyui.prompt"))
    assert told["comfyui.outcome"] == "success"
    assert told["comfyui.node.cached_count"] == 1
    assert told["comfyui.outputs"] == 1
    assert told["comfyui.execution.duration"] == pytest.approx(0.5)
    assert attributes(spans.one("comfyui.node SaveImage"))["comfyui.node.timing"] == "client"


def test_messages_about_prompts_of_others_are_ignored(spans: Spans) -> None:
    post("mine")
    tell("execution_start", "other")
    tell("executing", "other", node="9")
    tell("execution_error", "other", exception_type="X")
    tell("execution_success", "mine")
    assert [span.name for span in spans.all()] == ["comfyui.prompt"]
    assert attributes(spans.all()[0])["comfyui.outcome"] == "success"


def test_an_id_that_the_client_chose_counts_from_the_answers_head_on(spans: Spans) -> None:
    begun = exchange("POST", "/prompt", json.dumps({"prompt": NODES, "prompt_id": "chosen"}))
    assert begun is not None
    http.leave(begun)
    http.answered(begun, 200, lambda _: None)
    tell("execution_success", "chosen")
    assert attributes(spans.one("comfyui.prompt"))["comfyui.prompt.id"] == "chosen"


def test_the_first_sign_of_the_end_counts(spans: Spans) -> None:
    post()
    tell("execution_error", exception_type="ValueError", exception_message="boom", node_id="9", node_type="SaveImage")
    tell("executing", node=None)
    history = {"p": {"outputs": {}, "status": {"status_str": "success", "completed": True, "messages": []}}}
    answer(exchange("GET", "/history/p"), 200, history)
    told = attributes(spans.one("comfyui.prompt"))
    assert (told["comfyui.outcome"], told["error.type"]) == ("failed", "ValueError")
    assert (told["comfyui.error.node.id"], told["comfyui.error.node.type"]) == ("9", "SaveImage")


def test_an_end_found_by_asking_lies_where_the_servers_clock_puts_it(spans: Spans) -> None:
    post()
    time.sleep(0.06)
    # The server's clock is a year behind: only its differences can be used.
    messages = [["execution_start", {"timestamp": 1010}], ["execution_success", {"timestamp": 1030}]]
    status = {"status_str": "success", "completed": True, "messages": messages}
    entry = {"prompt": [1, "p", {}, {"create_time": 1000}], "outputs": {}, "status": status}
    answer(exchange("GET", "/history/p"), 200, {"p": entry})
    span = spans.one("comfyui.prompt")
    told = attributes(span)
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == pytest.approx(30e6, rel=0.01)
    assert told["comfyui.queue.wait"] == pytest.approx(0.01)
    assert told["comfyui.execution.duration"] == pytest.approx(0.02)


def test_times_that_cannot_be_are_not_believed(spans: Spans) -> None:
    post()
    messages = [["execution_start", {"timestamp": 5}], ["execution_success", {"timestamp": 9e12}]]
    entry = {"prompt": [1, "p", {}, {"create_time": 1}], "status": {"messages": messages}}
    answer(exchange("GET", "/history"), 200, {"p": entry})
    span = spans.one("comfyui.prompt")
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 <= span.end_time - span.start_time < 5e9


def test_a_prompt_whose_end_nobody_saw_ends_with_its_job_as_unknown(spans: Spans) -> None:
    working = job()
    post()
    answer(exchange("GET", "/history/p"), 200, {})
    job_end(working)
    told = attributes(spans.one("comfyui.prompt"))
    assert (told["comfyui.outcome"], told["comfyui.polls"]) == ("unknown", 1)
    assert attributes(spans.one("process q"))["otel_pipeline.job.outcome"] == "unknown"


def test_a_prompt_posted_and_not_waited_for_leaves_the_job_as_it_is(spans: Spans) -> None:
    working = job()
    post()
    job_end(working)
    assert attributes(spans.one("process q"))["otel_pipeline.job.outcome"] == "completed"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/queue", {"delete": ["p"]}),
        ("/queue", {"clear": True}),
        ("/interrupt", {"prompt_id": "p"}),
        ("/interrupt", None),
        ("/api/jobs/p/cancel", None),
        ("/api/jobs/cancel", {"job_ids": ["p"]}),
    ],
)
def test_what_this_client_cancels_is_interrupted_unless_the_server_says_otherwise(
    spans: Spans, path: str, body: object
) -> None:
    for prompt_id, told in (("p", None), ("q", "execution_success")):
        working = job()
        post(prompt_id)
        asked = json.loads(json.dumps(body).replace('"p"', f'"{prompt_id}"'))
        answer(exchange("POST", path.replace("/p/", f"/{prompt_id}/"), asked), 200)
        if told:
            tell(told, prompt_id)
        job_end(working)
    first, second = spans.named("comfyui.prompt")
    assert (attributes(first)["comfyui.outcome"], attributes(second)["comfyui.outcome"]) == ("interrupted", "success")
    assert [attributes(span)["otel_pipeline.job.outcome"] for span in spans.named("process q")] == [
        "cancelled",
        "completed",
    ]


def test_an_interruption_of_another_prompt_changes_nothing(spans: Spans) -> None:
    working = job()
    post()
    answer(exchange("POST", "/interrupt", b'{"prompt_id": "other"}'), 200)
    job_end(working)
    assert attributes(spans.one("comfyui.prompt"))["comfyui.outcome"] == "unknown"


def test_a_download_tells_that_its_prompt_succeeded(spans: Spans) -> None:
    working = job()
    post()
    begun = exchange("GET", "/view?filename=unheard.png&type=output")
    assert begun is not None
    assert begun.wants_size is False
    http.leave(begun)
    http.answered(begun, 200, lambda _: None)
    http.counted(begun, 10)
    http.counted(begun, 5)
    http.finished(begun)
    http.finished(begun)
    job_end(working)
    download, prompt = spans.one("comfyui.download"), spans.one("comfyui.prompt")
    assert download.parent is not None
    assert prompt.context is not None
    assert download.parent.span_id == prompt.context.span_id
    assert attributes(download)["http.response.body.size"] == 15
    assert attributes(prompt)["comfyui.outcome"] == "success"


def test_a_download_belongs_to_the_prompt_of_its_own_job(spans: Spans) -> None:
    image = {"output": {"images": [{"filename": "cached.png", "subfolder": ""}]}}
    for prompt_id in ("p", "q"):
        working = job()
        post(prompt_id)
        tell("executed", prompt_id, node="9", **image)
        tell("execution_success", prompt_id)
        for _ in range(2):
            answer(exchange("GET", "/view?filename=cached.png"), 200)
        job_end(working)
    traces = {span.context.trace_id for span in spans.all() if span.context is not None}
    assert len(traces) == 2
    for span in spans.named("comfyui.download"):
        assert span.parent is not None


def test_a_failed_download_says_so(spans: Spans) -> None:
    post()
    for end in ("status", "error"):
        begun = exchange("GET", "/view?filename=a.png")
        assert begun is not None
        http.leave(begun)
        http.answered(begun, 404 if end == "status" else 200, lambda _: None)
        http.finished(begun, None if end == "status" else TimeoutError("slow"))
    assert [attributes(span)["error.type"] for span in spans.named("comfyui.download")] == ["404", "TimeoutError"]


def test_an_upload_is_a_span_instead_of_the_official_one(spans: Spans) -> None:
    post()
    begun = exchange("POST", "/upload/image", b"--form")
    assert begun is not None
    assert not is_http_instrumentation_enabled()
    answer(begun, 200, {"name": "a.png"})
    assert attributes(spans.one("comfyui.upload"))["http.response.status_code"] == 200


def test_a_server_that_reports_its_nodes_itself_is_not_reported_twice(spans: Spans) -> None:
    answer(exchange("POST", "/prompt", BODY), 200, {"prompt_id": "p"}, **{"x-otel-pipeline-nodes": "server"})
    tell("executing", node="1")
    tell("execution_success")
    assert [span.name for span in spans.all()] == ["comfyui.prompt"]


@pytest.mark.parametrize(("mode", "names"), [("on", ["comfyui.node"]), ("off", [])])
def test_node_spans_can_be_asked_for_and_done_without(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, mode: str, names: list[str]
) -> None:
    chosen = read({"OTEL_PIPELINE_COMFYUI_NODE_SPANS": mode})
    monkeypatch.setattr(report, "settings", lambda: chosen)
    header = {"x-otel-pipeline-nodes": "server"} if mode == "on" else {}
    answer(exchange("POST", "/prompt", BODY), 200, {"prompt_id": "p"}, **header)
    tell("executing", node="1")
    tell("execution_success")
    assert [span.name.split(" ")[0] for span in spans.all()] == [*names, "comfyui.prompt"]
    events = [event.name for event in spans.one("comfyui.prompt").events]
    assert events == ([] if mode == "on" else ["comfyui.node"])


def test_a_prompt_of_yesterday_is_given_up(spans: Spans) -> None:
    post("old")
    prompt = prompts.found("old")
    assert prompt is not None
    prompt.started_ns -= int(AGE_S_MAX * 1e9) + 1
    post("new")
    assert attributes(spans.one("comfyui.prompt"))["comfyui.prompt.id"] == "old"
    prompts.close_all()
    assert len(spans.named("comfyui.prompt")) == 2


def test_the_same_id_again_ends_the_one_before(spans: Spans) -> None:
    post()
    post()
    tell("execution_success")
    assert [attributes(span)["comfyui.outcome"] for span in spans.named("comfyui.prompt")] == ["unknown", "success"]


def test_status_messages_to_other_servers_are_shown_to_the_outcome_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(outcomes, "http_message", lambda _job, *args: shown.append(args))
    url = "https://api.example.com/v1/jobs/j"
    assert http.begin("POST", url, lambda: b"{}") is None
    working = job()
    for method, body in (
        ("PATCH", b'{"status": "failed"}'),
        ("POST", {"ok": False}),
        ("PUT", "x" * 70_000),
        ("POST", None),
        ("GET", b"{}"),
    ):
        assert http.begin(method, url, lambda body=body: body) is None
    job_end(working)
    assert shown == [("PATCH", url, b'{"status": "failed"}'), ("POST", url, {"ok": False})]


def test_threads_that_post_poll_and_listen_at_once_lose_nothing(spans: Spans) -> None:
    def work(thread: int) -> None:
        for number in range(40):
            prompt_id = f"{thread}-{number}"
            post(prompt_id)
            answer(exchange("GET", f"/history/{prompt_id}"), 200, {})

    def listen() -> None:
        left = {f"{thread}-{number}" for thread in range(4) for number in range(40)}
        while left:
            for prompt_id in [each for each in left if prompts.found(each) is not None]:
                tell("executing", prompt_id, node="9")
                tell("execution_success", prompt_id)
                left.discard(prompt_id)

    failures = {name: each.failures for name, each in HOOKS.items()}
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=listen, daemon=True))
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
        assert not each.is_alive()
    assert {name: each.failures for name, each in HOOKS.items()} == failures
    assert len(spans.named("comfyui.prompt")) == len(spans.named("comfyui.node SaveImage")) == 160
    assert {attributes(span)["comfyui.outcome"] for span in spans.named("comfyui.prompt")} == {"success"}
