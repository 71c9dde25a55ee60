"""Frames of WebSockets: what is looked at, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from otel_pipeline.worker.comfyui import sockets
from otel_pipeline.worker.comfyui.answers import Accepted
from otel_pipeline.worker.comfyui.bodies import graph_of
from otel_pipeline.worker.comfyui.prompts import Prompt, prompts
from otel_pipeline.worker.comfyui.routes import classify
from otel_pipeline.worker.comfyui.sockets import frame
from tests.support.comfyui_replay import captures, frames, labels
from tests.support.worker_spans import Spans, attributes


class Socket:
    """Stands for a library's connection."""


@pytest.fixture
def prompt(spans: Spans) -> Iterator[Prompt]:
    assert spans.all() == []
    prompts.forget()
    route = classify("POST", "http://h:1/prompt")
    assert route is not None
    nodes = {"1": {"class_type": "SaveImageWebsocket"}, "2": {"class_type": "KSampler"}}
    made = prompts.start(route, graph_of({"prompt": nodes}))
    prompts.accepted(made, Accepted("p", None))
    yield made
    prompts.forget()


def text(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": {"prompt_id": "p", **data}})


@pytest.mark.parametrize("number", [number for number, capture in captures().items() if capture["ws"]])
def test_no_recorded_frame_is_too_much_for_the_hook(number: str, prompt: Prompt) -> None:
    failures = frame.failures
    for label in labels(captures()[number]):
        for data, _ in frames(captures()[number], label):
            frame(Socket(), data)
    assert frame.failures == failures
    assert not prompt.ended_ns


@pytest.mark.parametrize("form", [str, str.encode, lambda told: bytearray(told.encode())])
def test_text_may_come_as_bytes(form: Any, prompt: Prompt) -> None:
    frame(Socket(), form(text("execution_success")), text=True)
    assert prompt.ended_ns


def test_the_order_of_keys_does_not_matter(prompt: Prompt) -> None:
    data = {"prompt_id": "p", "padding": "x" * 500}
    frame(Socket(), json.dumps({"data": data, "type": "execution_success"}))
    assert prompt.ended_ns


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "[1]",
        "null",
        "plain text",
        '{"type": "execution_success"}',
        '{"type": "execution_success", "data": null}',
        '{"type": "execution_success", "data": {"prompt_id": 5}}',
        '{"type": "executing", "data": {"node": "3"}}',
        '{"type": "execution_success", "data": {"prompt_id": "p"',
        '{"event": "price", "prompt_id": "p"}',
        b"\xff\xfe",
        b"\x00\x00\x00\x01",
        None,
        5,
    ],
)
def test_other_frames_are_left_alone(data: Any, prompt: Prompt) -> None:
    failures = frame.failures
    for kind in (None, True, False):
        frame(Socket(), data, kind)
    assert frame.failures == failures
    assert not prompt.ended_ns


def test_a_binary_frame_is_not_parsed(prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_parsed", lambda _: pytest.fail("it was parsed"))
    frame(Socket(), text("execution_success").encode())
    assert not prompt.ended_ns


def test_images_of_a_node_that_sends_its_outputs_as_frames_are_counted(prompt: Prompt, spans: Spans) -> None:
    socket, png, jpeg = Socket(), b"\0\0\0\1\0\0\0\2\x89PNG", b"\0\0\0\1\0\0\0\1\xff\xd8"
    frame(socket, text("executing", node="2"))
    frame(socket, jpeg)
    frame(socket, text("executing", node="1"))
    frame(socket, png)
    frame(socket, png, text=False)
    frame(Socket(), png)
    frame(socket, text("execution_success"))
    assert attributes(spans.one("comfyui.prompt"))["comfyui.outputs"] == 2
    assert prompt.frames == 2


def test_an_error_that_quotes_megabytes_still_tells_its_type(prompt: Prompt, spans: Spans) -> None:
    told = text(
        "execution_error",
        node_id="2",
        node_type="KSampler",
        executed=[],
        exception_message='said "no" \n',
        exception_type="torch.OutOfMemoryError",
        current_inputs={"x": ["9" * 2_000_000]},
    )
    frame(Socket(), told)
    assert prompt.ended_ns
    found = attributes(spans.one("comfyui.prompt"))
    assert found["error.type"] == "torch.OutOfMemoryError"
    assert spans.one("comfyui.prompt").status.description == 'said "no"'


def test_other_long_texts_are_skipped(prompt: Prompt) -> None:
    frame(Socket(), text("executed", node="2", output={"text": ["x" * 2_000_000]}))
    assert not prompt.files
    assert not prompt.ended_ns
