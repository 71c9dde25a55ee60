"""Which exceptions of a stack trace count."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.failures.chain import DIRECT, HANDLING, chain
from otel_pipeline.failures.classify import Classifier
from otel_pipeline.failures.evidence import evidence

CLASSIFIER = Classifier()


def trace(*links: tuple[str, str]) -> str:
    """Python's text of exceptions, the root cause first; the second of a pair is the words before the next one."""
    text = ""
    for raised, words in links:
        text += f'Traceback (most recent call last):\n  File "/app/a.py", line 3, in run\n    go()\n{raised}\n'
        text += f"\n{words}\n\n" if words else ""
    return text


def named(stack: str, kind: str = "", message: str = "") -> str:
    return CLASSIFIER.classify(evidence(kind, message, stack)).name


def test_a_direct_cause_counts_with_its_wrapper() -> None:
    stack = trace(("ConnectionRefusedError: [Errno 111] Connection refused", DIRECT), ("app.JobFailed: job failed", ""))
    assert named(stack, "app.JobFailed", "job failed") == "NETWORK_ERROR"


def test_what_was_being_handled_counts_only_if_the_outer_one_says_nothing() -> None:
    silent = trace(("httpx.ReadTimeout", HANDLING), ("RuntimeError: failed to make a preview", ""))
    assert named(silent, "RuntimeError", "failed to make a preview") == "TIMEOUT_ERROR"
    telling = trace(("httpx.ReadTimeout", HANDLING), ("RuntimeError: CUDA error: device-side assert triggered", ""))
    assert named(telling) == "MODEL_INFERENCE_ERROR"


def test_a_gpu_out_of_memory_counts_anywhere_in_the_chain() -> None:
    stack = trace(
        ("torch.OutOfMemoryError: Allocation on device", HANDLING), ("redis.exceptions.ConnectionError: x", "")
    )
    assert named(stack, "redis.exceptions.ConnectionError", "x") == "GPU_OOM_ERROR"


def test_the_leaves_of_an_exception_group_count() -> None:
    stack = """  + Exception Group Traceback (most recent call last):
  |   File "/app/a.py", line 3, in run
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/app/b.py", line 9, in load
    | torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
    +------------------------------------
"""
    kinds = [link.kind for link in chain("ExceptionGroup", "", stack)[0]]
    assert kinds == ["ExceptionGroup", "torch.OutOfMemoryError"]
    assert named(stack, "ExceptionGroup", "unhandled errors in a TaskGroup (1 sub-exception)") == "GPU_OOM_ERROR"


def test_the_causes_of_java_and_node_count() -> None:
    java = "app.JobException: failed\n\tat app.Job.run(Job.java:3)\nCaused by: java.net.SocketTimeoutException: timeout"
    assert named(java, "app.JobException", "failed") == "TIMEOUT_ERROR"
    node = "Error: failed\n    at run (/app/a.js:3:1)\n  [cause]: Error: connect ECONNREFUSED 10.0.0.3:443"
    assert named(node, "Error", "failed") == "NETWORK_ERROR"


def test_a_deadline_that_cancelled_its_task_is_a_deadline() -> None:
    stack = trace(("asyncio.exceptions.CancelledError", DIRECT), ("TimeoutError", ""))
    assert named(stack, "TimeoutError") == "TIMEOUT_ERROR"


@given(st.text(), st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.integers()))
def test_nothing_raises(kind: str, message: str, stack: str, attributes: dict[str, str | int]) -> None:
    verdict = CLASSIFIER.classify(evidence(kind, message, stack, message, kind, attributes))
    assert verdict.fingerprint


PIECES = st.sampled_from(
    [
        "Traceback",
        DIRECT,
        HANDLING,
        "\n",
        '  File "a.py", line 1, in f\n',
        "ExceptionGroup",
        "| ",
        "+-+-- 1 --",
        "x: y",
        ":",
        " ",
    ]
)


@given(st.lists(PIECES).map("".join))
def test_broken_stack_traces_do_not_raise(stack: str) -> None:
    assert CLASSIFIER.classify(evidence("E", "m", stack)).name


def test_a_megabyte_of_anything_takes_bounded_time() -> None:
    seeds = (
        "a",
        "image ",
        '"',
        "[",
        "/a",
        "Caused by: ",
        "cuda ",
        f"\n{DIRECT}\n",
        "429 ",
        "\n  at ",
        "((((",
        "0123456789",
    )
    for seed in seeds:
        text = seed * (1_000_000 // len(seed))
        start = time.process_time()
        CLASSIFIER.classify(evidence(text, text, text, text, text, {"url.full": text}))
        assert time.process_time() - start < 0.5, seed
