"""What a program says of its job, as real workers say it: in return values, status writes, pushes and callbacks."""

from __future__ import annotations

import dataclasses
import enum
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context

from otel_pipeline.worker import outcomes
from otel_pipeline.worker.evidence import Evidence, Outcome, Source
from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.jobs import Job, Origin

JOB = "7f3c-job-1"
COMPLETED, FAILED, PARTIAL = Outcome.COMPLETED, Outcome.FAILED, Outcome.PARTIAL
CANCELLED, SKIPPED = Outcome.CANCELLED, Outcome.SKIPPED


def job(identifier: str = JOB, element: bytes | None = None, queue: str = "video:jobs") -> Job:
    return Job(Origin("redis", queue), identifier, trace.INVALID_SPAN, True, 1, Context(), element=element)  # noqa: FBT003


class State(enum.Enum):
    FAILED = "failed"
    DONE = "done"


class Word(enum.StrEnum):
    ERROR = "error"


@dataclasses.dataclass
class Result:
    status: Any = None
    error: Any = None
    success: Any = None


class Hostile:
    """Whatever is read of it by running its code ends the test."""

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(name)

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__

    def __iter__(self) -> Any:
        raise SystemExit

    def __bool__(self) -> bool:
        raise SystemExit

    def __eq__(self, other: object) -> bool:
        raise SystemExit

    __hash__ = None  # type: ignore[assignment]

    @property
    def status(self) -> str:
        raise SystemExit


RETURNED: list[tuple[Any, Outcome | None]] = [
    # nothing said
    (None, None),
    (True, None),
    (0, None),
    (1, None),
    (-1, None),
    (500, None),
    (3.5, None),
    ("", None),
    ("https://cdn.example/out.png", None),
    ("/data/out/video.mp4", None),
    ("3 failed", None),
    ("a red car, no errors visible", None),
    (b"bytes", None),
    ({}, None),
    ([], None),
    ((), None),
    ({"image_url": "https://cdn.example/x.png"}, None),
    ({"error": None}, None),
    ({"error": ""}, None),
    ({"error": "  "}, None),
    ({"error": "None"}, None),
    ({"error": False}, None),
    ({"error": 0}, None),
    ({"error": {}}, None),
    ({"error": []}, None),
    ({"error": 0.02}, None),
    ({"errors": []}, None),
    ({"errors": [None, ""]}, None),
    ({"errors": {}}, None),
    ({"error_rate": 0.1}, None),
    ({"error_count": 0}, None),
    ({"failed": 0}, None),
    ({"failed": []}, None),
    ({"failed": False}, None),
    ({"status": 200}, None),
    ({"status": "200"}, None),
    ({"statusCode": 200, "body": "fine"}, None),
    ({"status_code": 301}, None),
    ({"status": "processing"}, None),
    ({"status": "IN_PROGRESS"}, None),
    ({"status": "queued", "job_id": JOB}, None),
    ({"status": "unknown thing"}, None),
    ({"state": "retrying"}, None),
    ({"code": 0, "msg": "generated"}, None),
    ({"code": 200, "msg": "generated"}, None),
    ({"code": 500}, None),
    ({"error": {"code": 0, "message": ""}}, None),
    ({"node_errors": {}}, None),
    ({"output": {"error": None, "images": ["x"]}}, None),
    ({"message": "failed attempts: 0"}, None),
    ({"seed": 5, "timeout": 30}, None),
    ([{"url": "a"}, {"url": "b"}], None),
    ((True, "fine"), None),
    (("a.png", "b.png"), None),
    ((512, 512), None),
    # failures
    ({"error": "CUDA out of memory"}, FAILED),
    ({"error": True}, FAILED),
    ({"error": 7}, FAILED),
    ({"error": ["node 3 broke"]}, FAILED),
    ({"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}}, FAILED),
    ({"error": {"message": "quota"}}, FAILED),
    ({"errors": [{"message": "x"}]}, FAILED),
    ({"errors": ["a", "b"]}, FAILED),
    ({"error_message": "boom"}, FAILED),
    ({"errorMessage": "boom", "errorType": "ValueError"}, FAILED),
    ({"exception": "boom"}, FAILED),
    ({"failure_reason": "nsfw"}, FAILED),
    ({"output": {"error": "boom"}}, FAILED),
    ({"result": {"error": "boom"}}, FAILED),
    ({"data": {"error": "boom"}}, FAILED),
    ({"output": json.dumps({"error": "boom"})}, FAILED),
    (json.dumps({"status": "error", "message": "boom"}), FAILED),
    ({"success": False}, FAILED),
    ({"success": "false"}, FAILED),
    ({"success": 0}, FAILED),
    ({"ok": False, "description": "Bad Request"}, FAILED),
    ({"success": False, "data": None, "error": "boom"}, FAILED),
    ({"success": True, "data": {"status": "failed"}}, FAILED),
    ({"status": "failed"}, FAILED),
    ({"status": "FAILED", "reason": "timeout"}, FAILED),
    ({"status": "error"}, FAILED),
    ({"status": "timeout"}, FAILED),
    ({"status": "TIMED_OUT"}, FAILED),
    ({"status": "timedOut"}, FAILED),
    ({"status": "upload_failed"}, FAILED),
    ({"state": "JobState.FAILED"}, FAILED),
    ({"status": State.FAILED}, FAILED),
    ({"status": Word.ERROR}, FAILED),
    ({"job_status": "dead"}, FAILED),
    ({"status": "ok", "state": "failed"}, FAILED),
    ({"status": {"status_str": "error", "completed": False}}, FAILED),
    ({"status": 500}, FAILED),
    ({"statusCode": 502, "body": "{}"}, FAILED),
    ({"status_code": 404}, FAILED),
    ({"statusCode": "429"}, FAILED),
    ({"code": 500, "msg": "no card free", "data": None}, FAILED),
    ({"failed": True}, FAILED),
    ({"succeeded": 0, "failed": 3}, FAILED),
    ({"success_count": 0, "failed_count": 2}, FAILED),
    ((False, "no face found"), FAILED),
    ((False, {"detail": "no face found"}), FAILED),
    ((None, ValueError("x")), FAILED),
    (("error", "no face found"), FAILED),
    (("failed", None), FAILED),
    (({"error": "boom"}, 500), FAILED),
    (("boom", 503), FAILED),
    (False, FAILED),
    (ValueError("x"), FAILED),
    ([ValueError("x"), ValueError("y")], FAILED),
    ("Error: no face found", FAILED),
    ("ERROR - no face found", FAILED),
    ("failed", FAILED),
    ("Upload failed", FAILED),
    ("Failed to download the input", FAILED),
    ("torch.OutOfMemoryError: CUDA out of memory", FAILED),
    ("Traceback (most recent call last):\n  File x\nKeyError: 'a'", FAILED),
    (Result(status="failed"), FAILED),
    (Result(error="boom"), FAILED),
    (Result(success=False), FAILED),
    (SimpleNamespace(status=State.FAILED), FAILED),
    ([{"status": "failed"}, {"status": "failed"}], FAILED),
    # partial
    ({"succeeded": 3, "failed": 1}, PARTIAL),
    ({"succeeded": 1, "failed": 1}, PARTIAL),
    ({"succeeded": ["a"], "failed": ["b"]}, PARTIAL),
    ({"success": True, "failed_count": 2}, PARTIAL),
    ({"errors": ["x"], "images": ["a.png"]}, PARTIAL),
    ({"status": "completed", "errors": ["thumbnail"]}, PARTIAL),
    ({"status": "partial"}, PARTIAL),
    ({"status": "completed_with_errors"}, PARTIAL),
    ({"status": "completed", "failed": 1}, PARTIAL),
    ({"results": [{"status": "ok"}, {"status": "failed"}]}, PARTIAL),
    ([{"success": True}, {"success": False}], PARTIAL),
    ([{"url": "a"}, ValueError("x")], PARTIAL),
    # cancelled, skipped
    ({"status": "cancelled"}, CANCELLED),
    ({"status": "CANCELED", "error": "by the user"}, CANCELLED),
    ({"status": "aborted"}, CANCELLED),
    ({"cancelled": True}, CANCELLED),
    ({"success": False, "cancelled": True}, CANCELLED),
    ({"status": "skipped", "reason": "already done"}, SKIPPED),
    ({"skipped": True}, SKIPPED),
    ("skipped", SKIPPED),
    # completed
    ({"status": "completed"}, COMPLETED),
    ({"status": "SUCCESS", "error": None}, COMPLETED),
    ({"status": "success", "errors": []}, COMPLETED),
    ({"success": True}, COMPLETED),
    ({"ok": True, "error": ""}, COMPLETED),
    ({"status": State.DONE}, COMPLETED),
    ({"succeeded": 4, "failed": 0}, COMPLETED),
    ({"status": {"status_str": "success", "completed": True}}, COMPLETED),
    (Result(status="done"), COMPLETED),
    ("done", COMPLETED),
]


@pytest.mark.parametrize(
    ("value", "outcome"), RETURNED, ids=[f"{i}-{str(v)[:40]}" for i, (v, _) in enumerate(RETURNED)]
)
def test_a_return_value_says_what_it_says_and_no_more(value: Any, outcome: Outcome | None) -> None:
    evidence = outcomes.returned(value)
    assert (evidence.outcome if evidence else None) is outcome
    assert evidence is None or evidence.source is Source.RETURN


def test_the_tables_are_as_large_as_the_ways_real_workers_have() -> None:
    assert len(RETURNED) + len(WRITTEN) + len(PUSHED) + len(POSTED) >= 190


def test_false_says_nothing_of_a_job_that_was_reported_as_completed() -> None:
    done = job()
    done.observe(Evidence(Source.STATUS, COMPLETED))
    value = False
    assert outcomes.returned(value, done) is None
    assert outcomes.returned(value, job()) is not None


WRITTEN: list[tuple[str, Any, Outcome | None]] = [
    (f"job:{JOB}:status", "failed", FAILED),
    (f"job:{JOB}:status", b"failed", FAILED),
    (f"job:{JOB}", "Error: no face found", FAILED),
    (f"job:{JOB}", "failed: no face found", FAILED),
    (f"job:{JOB}", json.dumps({"status": "failed", "error": "boom"}), FAILED),
    (f"job:{JOB}", {"status": "error", "error": "boom"}, FAILED),
    (f"job:{JOB}", {b"status": b"error", b"error": b"boom"}, FAILED),
    (f"job:{JOB}", {"status": json.dumps("failed")}, FAILED),
    (f"job:{JOB}", {"error": "boom"}, FAILED),
    (f"job:{JOB}", {"progress": -1}, FAILED),
    (f"job:{JOB}", {"progress": b"-1"}, FAILED),
    (JOB, {"state": "-1"}, FAILED),
    (JOB, {"state": -1, "progress": 40}, FAILED),
    (JOB, {"state": "4", "progress": "5"}, None),
    (f"progress:{JOB}", -1, FAILED),
    (f"progress:{JOB}", "-1", FAILED),
    (f"job:{JOB}:error", "no face found", FAILED),
    (f"job:{JOB}:failed", "1", FAILED),
    (f"result:{JOB}", {"success": False}, FAILED),
    (f"job:{JOB}", {"state": "FAILURE"}, FAILED),
    (f"job:{JOB}", {"status": "failed", "stage": "render"}, FAILED),
    ("statuses", {JOB: "failed"}, FAILED),
    ("statuses", {JOB.encode(): b"failed"}, FAILED),
    ("statuses", {JOB: json.dumps({"status": "failed"})}, FAILED),
    ("jobs:last", json.dumps({"job_id": JOB, "status": "failed"}), FAILED),
    ("jobs:last", json.dumps({"jobId": JOB, "state": "cancelled"}), CANCELLED),
    (f"job:{JOB}:status", "cancelled", CANCELLED),
    (f"job:{JOB}:status", "skipped", SKIPPED),
    (f"job:{JOB}:status", "partial", PARTIAL),
    (f"job:{JOB}:status", "completed", COMPLETED),
    (f"job:{JOB}", json.dumps({"status": "done", "url": "x"}), COMPLETED),
    (f"job:{JOB}", {"status": "completed", "progress": 100}, COMPLETED),
    (f"job:{JOB}:done", "1", COMPLETED),
    (f"job:{JOB}:status", "processing", None),
    (f"job:{JOB}:status", "running", None),
    (f"job:{JOB}", {"status": "processing", "error": "of the last attempt"}, None),
    (f"job:{JOB}", {"status": "pending"}, None),
    (f"job:{JOB}", {"status": "processing", "result": {"error": "of the last attempt"}}, None),
    (f"job:{JOB}", {"status": "retrying", "error": "boom"}, None),
    (f"job:{JOB}", {"progress": 40}, None),
    (f"job:{JOB}", {"progress": 0}, None),
    (f"job:{JOB}", {"status": "", "error": ""}, None),
    (f"job:{JOB}", {"error": None}, None),
    (f"job:{JOB}", {"stage": "tts", "status": "completed"}, None),
    (f"job:{JOB}", {"stage": "done", "status": "completed"}, COMPLETED),
    (f"job:{JOB}", {"status": "done", "progress": 0.5}, None),
    (f"job:{JOB}:stage:tts", "done", None),
    (f"job:{JOB}:error", "", None),
    (f"job:{JOB}:error", "none", None),
    (f"job:{JOB}:cursor", "-1", None),
    (f"job:{JOB}:result", "https://cdn.example/x.png", None),
    (f"job:{JOB}:prompt", "an error in the matrix", None),
    (f"job:{JOB}:lock", "1", None),
    ("job:another:status", "failed", None),
    (f"job:{JOB}0:status", "failed", None),
    ("statuses", {"another": "failed"}, None),
    ("jobs:last", json.dumps({"job_id": "another", "status": "failed"}), None),
    ("worker:heartbeat", "failed", None),
    ("stats", {"failed": 3}, None),
    (f"job:{JOB}", b"\xff\xfe", None),
    (f"job:{JOB}", "x" * 10_000, None),
]


@pytest.mark.parametrize(("key", "value", "outcome"), WRITTEN)
def test_a_status_write_counts_if_it_names_the_job_and_is_final(key: str, value: Any, outcome: Outcome | None) -> None:
    evidence = outcomes.status_write(job(), key, value)
    assert (evidence.outcome if evidence else None) is outcome
    assert evidence is None or evidence.source is Source.STATUS


def test_a_status_write_names_the_job_by_the_element_that_was_popped() -> None:
    evidence = outcomes.status_write(job("123", b"tts:123"), "status:tts:123", "failed")
    assert evidence is not None
    assert evidence.outcome is FAILED


ELEMENT = json.dumps({"job_id": JOB, "prompt": "a cat"}).encode()
PUSHED: list[tuple[str, Any, Outcome | None]] = [
    ("video:dead", ELEMENT, FAILED),
    ("dlq", ELEMENT, FAILED),
    ("video-dead-letter", ELEMENT.decode(), FAILED),
    ("jobs:failed", JOB, FAILED),
    ("errors", json.dumps({"job_id": JOB, "reason": "boom"}), FAILED),
    ("failed_jobs", json.dumps({"job": {"job_id": JOB}}), FAILED),
    ("video:retry", ELEMENT, FAILED),
    ("results", json.dumps({"job_id": JOB, "status": "failed"}), FAILED),
    ("results", json.dumps({"id": JOB, "error": "boom"}), FAILED),
    ("results", json.dumps({"task_id": JOB, "success": True}), COMPLETED),
    ("results", {"job_id": JOB, "status": "cancelled"}, CANCELLED),
    ("results", json.dumps([{"job_id": "a", "status": "done"}, {"job_id": JOB, "status": "failed"}]), FAILED),
    ("results", json.dumps({"job_id": JOB, "status": "processing"}), None),
    ("results", json.dumps({"job_id": JOB, "url": "x"}), None),
    ("results", json.dumps({"job_id": "another", "status": "failed"}), None),
    ("tts:jobs", json.dumps({"parent": JOB, "text": "hello"}), None),
    ("tts:jobs", json.dumps({"job_id": JOB, "text": "hello"}), None),
    ("video:jobs", ELEMENT, None),
    ("video:dead", json.dumps({"job_id": "another"}), None),
    ("video:dead", b"another", None),
]


@pytest.mark.parametrize(("queue", "value", "outcome"), PUSHED)
def test_a_push_counts_if_the_message_names_the_job(queue: str, value: Any, outcome: Outcome | None) -> None:
    evidence = outcomes.pushed(job(element=ELEMENT), queue, value)
    assert (evidence.outcome if evidence else None) is outcome
    assert evidence is None or evidence.source is Source.MESSAGE


POSTED: list[tuple[str, str, Any, Outcome | None]] = [
    ("POST", "https://api.example/callback", json.dumps({"job_id": JOB, "status": "failed"}).encode(), FAILED),
    ("POST", "https://api.example/callback", {"job_id": JOB, "status": "completed"}, COMPLETED),
    ("PATCH", f"https://api.example/jobs/{JOB}", {"status": "error", "error": "boom"}, FAILED),
    ("PATCH", f"https://db.example/rest/v1/jobs?id=eq.{JOB}", {"status": "failed"}, FAILED),
    ("PUT", f"https://api.example/jobs/{JOB}/status", {"state": "cancelled"}, CANCELLED),
    ("POST", f"https://api.example/jobs/{JOB}/fail", {"error": "boom"}, FAILED),
    ("POST", "https://api.example/callback", f"job_id={JOB}&status=failed", FAILED),
    ("POST", "https://api.example/callback", {"data": {"id": JOB, "status": "failed"}}, FAILED),
    ("POST", "https://api.example/callback", {"job": {"id": JOB, "status": "failed"}}, FAILED),
    ("POST", "https://api.example/callback", {"job_id": JOB, "status": "processing"}, None),
    ("POST", "https://api.example/callback", {"job_id": JOB, "error": None}, None),
    ("POST", "https://api.example/callback", {"job_id": "another", "status": "failed"}, None),
    ("POST", "https://api.example/callback", {"status": "failed"}, None),
    ("GET", f"https://api.example/jobs/{JOB}", {"status": "failed"}, None),
    ("POST", f"https://api.example/jobs/{JOB}", None, None),
    ("POST", f"https://api.example/jobs/{JOB}", b"\x00\x01", None),
    ("POST", "http://gpu/prompt", {"prompt": {"1": {"class_type": "KSampler"}}, "client_id": JOB}, None),
]


@pytest.mark.parametrize(("method", "url", "body", "outcome"), POSTED)
def test_a_request_counts_if_it_names_the_job_and_is_final(
    method: str, url: str, body: Any, outcome: Outcome | None
) -> None:
    evidence = outcomes.http_message(job(), method, url, body)
    assert (evidence.outcome if evidence else None) is outcome
    assert evidence is None or evidence.source is Source.MESSAGE


TRACEBACK = (
    "Traceback (most recent call last):\n"
    + "".join(f'  File "/app/x{i}.py", line {i}, in step\n    run()\n' for i in range(200))
    + "grpc._channel._InactiveRpcError: <_InactiveRpcError of RPC that terminated with:\n\tstatus = UNAVAILABLE\n>"
)


@pytest.mark.parametrize(
    ("value", "error_type"),
    [
        ({"error": "torch.OutOfMemoryError: CUDA out of memory"}, "torch.OutOfMemoryError"),
        ({"error": "boom", "error_type": "ValueError"}, "ValueError"),
        ({"error": {"type": "prompt_no_outputs", "message": "x"}}, "prompt_no_outputs"),
        ({"error": {"code": 1042, "message": "x"}}, "1042"),
        ({"success": False, "code": "GPU_OOM", "message": "x"}, "GPU_OOM"),
        ({"status": "failed", "type": "video", "message": "x"}, None),
        ({"status": "failed", "message": "ValueError: x"}, "ValueError"),
        ({"status": "timeout"}, "timeout"),
        ({"statusCode": 502}, "502"),
        ("Error: httpx.ReadTimeout: ", "httpx.ReadTimeout"),
        ("Traceback (most recent call last):\n  File x\nKeyError: 'a'", "KeyError"),
        ({"error": "cv2.error: OpenCV(5.0.0) resize.cpp:4217"}, "cv2.error"),
        ({"error": TRACEBACK}, "grpc._channel._InactiveRpcError"),
        (ValueError("x"), "ValueError"),
        ({"error": "something with many words and 17 numbers"}, None),
        ({"error": "boom", "error_code": "a long sentence that is no code"}, None),
    ],
)
def test_the_type_of_an_error_is_a_name_and_never_a_sentence(value: Any, error_type: str | None) -> None:
    evidence = outcomes.returned(value)
    assert evidence is not None
    assert evidence.error_type == error_type


def test_of_a_traceback_the_exceptions_own_line_is_the_message() -> None:
    evidence = outcomes.returned({"error": TRACEBACK})
    assert evidence is not None
    assert evidence.message == "grpc._channel._InactiveRpcError: <_InactiveRpcError of RPC that terminated with:"


def test_messages_are_short_and_without_secrets() -> None:
    token = "hf_" + "a" * 30
    url = "https://user:" + "pw@" + "bucket.example/x.png?X-Amz-Signature=" + "f" * 40
    text = f"upload to {url} failed with Authorization: Bearer {'q' * 30}, {token}, mail a.b@c.example " + "x" * 500
    evidence = outcomes.returned({"error": text})
    assert evidence is not None
    assert evidence.message is not None
    assert len(evidence.message) <= 256
    for secret in (token, "pw@", "Signature=f", "q" * 30, "a.b@c"):
        assert secret not in evidence.message
    assert evidence.message.startswith("upload to https://[redacted]@bucket.example/x.png?[redacted]")


def test_no_code_of_the_program_is_run() -> None:
    hostile = Hostile()
    for value in (hostile, {"error": hostile}, {"status": hostile}, [hostile], (False, hostile), {"output": hostile}):
        outcomes.returned(value)
        outcomes.status_write(job(), f"job:{JOB}", value)
        outcomes.pushed(job(), "dead", value)
        outcomes.http_message(job(), "POST", f"http://x/{JOB}", value)
    evidence = outcomes.returned({"error": hostile})
    assert evidence is not None
    assert evidence.outcome is FAILED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["error", "errors", "status", "data", "job_id", "a"]), inner)
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_comes_it_is_read_without_a_fault(value: Any) -> None:
    before = {name: hook.failures for name, hook in HOOKS.items() if name.startswith("outcomes.")}
    outcomes.returned(value)
    outcomes.status_write(job(), f"job:{JOB}", value)
    outcomes.pushed(job(), "failed", value)
    outcomes.http_message(job(), "POST", "http://x/", value)
    assert before == {name: hook.failures for name, hook in HOOKS.items() if name.startswith("outcomes.")}
