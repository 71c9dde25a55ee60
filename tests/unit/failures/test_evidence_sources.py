"""Where the rules look besides type and message: the library that raised, types in a text, status codes in a text."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline.failures.classify import Classifier
from otel_pipeline.failures.evidence import evidence
from otel_pipeline.failures.frames import innermost
from otel_pipeline.failures.rules import http_status

CLASSIFIER = Classifier()
PYTHON = (
    'Traceback (most recent call last):\n  File "/app/a.py", line 3, in run\n    go()\n'
    '  File "{}", line 9, in go\n    x\n{}'
)
NODE = "Error: x\n    at {} ({}:31:13)\n    at run (/app/src/a.js:3:1)"


def named(kind: str, message: str, stack: str = "", span: str = "", attributes: dict[str, Any] | None = None) -> str:
    return CLASSIFIER.classify(evidence(kind, message, stack, span=span, attributes=attributes)).name


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("/v/lib/python3.11/site-packages/PIL/PngImagePlugin.py", "MEDIA_ERROR"),
        ("/v/lib/python3.11/site-packages/aiormq/channel.py", "QUEUE_ERROR"),
        ("/v/lib/python3.11/site-packages/asyncpg/pool.py", "DATABASE_ERROR"),
        ("/v/lib/python3.11/site-packages/torch/serialization.py", "MODEL_INFERENCE_ERROR"),
        ("/app/worker/b.py", "UNKNOWN_ERROR"),
    ],
)
def test_the_library_that_raised_tells_what_it_has_to_do_with(library: str, name: str) -> None:
    stack = PYTHON.format(library, "ValueError: not now")
    assert named("ValueError", "not now", stack) == name


def test_a_library_further_out_does_not() -> None:
    stack = PYTHON.format("/app/b.py", "ValueError: not now").replace(
        "/app/a.py", "/v/site-packages/celery/app/trace.py"
    )
    assert named("ValueError", "not now", stack) == "UNKNOWN_ERROR"


def test_node_modules_are_libraries_too() -> None:
    stack = NODE.format("Object.take", "/app/node_modules/bullmq/dist/cjs/classes/worker.js")
    assert named("Error", "not now", stack) == "QUEUE_ERROR"
    assert innermost(stack).startswith("Object.take")
    assert not innermost("no frames")


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("boom: <class 'asyncpg.exceptions.ConnectionDoesNotExistError'>: closed", "DATABASE_ERROR"),
        ("TimeoutError: gave up", "TIMEOUT_ERROR"),
        ("failed (Caused by ConnectTimeoutError(x))", "TIMEOUT_ERROR"),
        ("app.render.Job is gone", "UNKNOWN_ERROR"),
    ],
)
def test_types_that_a_message_quotes_count(message: str, name: str) -> None:
    assert named("", message) == name


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Failed to fetch image: 402", "402"),
        ("API Error: {'detail': '400: concepts are not supported'}", "400"),
        ("Polling aborted due to error: API Error (status 403)", "403"),
        ('Error: 529 {"type":"error"}', "529"),
        ("(406, 'PRECONDITION_FAILED')", "406"),
        ("expected input of size 512, error", ""),
        ("shape '[400, 64]' is invalid", ""),
        ("[Errno 104] Connection reset", ""),
    ],
)
def test_a_status_in_a_text_is_told_from_other_numbers(message: str, status: str) -> None:
    assert http_status({}, message) == status


def test_what_was_asked_for_is_no_evidence() -> None:
    asked = "Client error '404 Not Found' for url 'https://a.example/v1/moderations/voice/tensor.webp?codec=x'"
    assert named("httpx.HTTPStatusError", asked) == "UNKNOWN_ERROR"


def test_a_provider_that_answered_nothing_of_use_failed() -> None:
    at = {"server.address": "api.lumalabs.ai", "http.response.status_code": 200}
    assert named("ValueError", "nothing there", span="poll", attributes=at) == "FLUX_API_ERROR"
    assert named("NameError", "name 'x' is not defined", span="poll", attributes=at) == "UNKNOWN_ERROR"
    node = {"comfyui.node.type": "KlingImage2VideoNode"}
    assert named("Exception", "nothing there", attributes=node) == "FLUX_API_ERROR"
    assert (
        named("RuntimeError", "nothing there", attributes={"comfyui.node.type": "KSampler"}) == "MODEL_INFERENCE_ERROR"
    )
