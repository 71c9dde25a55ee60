"""Which failures are the same one."""

from __future__ import annotations

import pytest

from otel_pipeline.failures.classify import Classifier
from otel_pipeline.failures.evidence import evidence
from otel_pipeline.failures.frames import own
from otel_pipeline.failures.wording import normalised

CLASSIFIER = Classifier()


def mark(message: str, stack: str = "", kind: str = "RuntimeError") -> str:
    return CLASSIFIER.classify(evidence(kind, message, stack)).fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("node 12 failed after 3.5 s", "node 7 failed after 61 s"),
        ("file '/a/b.png' is broken", "file '/c/d/e.png' is broken"),
        ("job 5f0c3c1e-7a55-4d0e-9a53-3f9c6f6d7a10 is gone", "job 0a0c3c1e-7a55-4d0e-9a53-3f9c6f6d7a11 is gone"),
        ("at 0x7f3a got deadbeef01", "at 0x11 got cafe0123"),
        ("cannot load /models/a.safetensors now", "cannot load /data/models/b.safetensors now"),
        ("GET https://a.example/x?y=1 failed", "GET https://b.example/z failed"),
        ("tried to allocate 2.00 GiB", "tried to allocate 512.00 MiB"),
        ('voice "Anna" is unknown', 'voice "Otto" is unknown'),
    ],
)
def test_what_varies_does_not_make_another_failure(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert mark(one) == mark(other)


def test_different_failures_differ() -> None:
    marks = [
        mark("the mask is empty"),
        mark("the image is empty"),
        mark("the mask is empty", kind="ValueError"),
        mark("the mask is empty", 'Traceback\n  File "/app/a.py", line 3, in run\nRuntimeError: the mask is empty'),
        mark("the mask is empty", 'Traceback\n  File "/app/b.py", line 3, in run\nRuntimeError: the mask is empty'),
    ]
    assert len(set(marks)) == len(marks)


def test_line_numbers_and_places_of_installation_do_not_count() -> None:
    one = (
        'Traceback\n  File "/srv/v1/app/a.py", line 3, in run\n  File "/x/site-packages/torch/a.py", line 9, in f\nE: x'
    )
    other = (
        'Traceback\n  File "/opt/v2/app/a.py", line 88, in run\n  File "/y/site-packages/t/b.py", line 1, in g\nE: x'
    )
    assert mark("x", one, "E") == mark("x", other, "E")


PYTHON = '  File "/app/w/a.py", line 3, in run\n  File "/v/lib/python3.11/json/x.py", line 1, in f'
NODE = (
    "Error: x\n    at run (/app/src/a.js:3:9)\n    at go (node:internal/x:1:2)\n    at h (/app/node_modules/y.js:1:1)"
)
JAVA = "E: x\n\tat app.Job.run(Job.java:3)\n\tat java.base/java.lang.Thread.run(Thread.java:1)"
GO = "goroutine 1 [running]:\nmain.run(0x1)\n\t/app/cmd/a.go:9 +0x1\nruntime.main()\n\t/usr/local/go/src/x.go:1"


@pytest.mark.parametrize(
    ("stack", "frames"),
    [(PYTHON, ["w/a:run"]), (NODE, ["src/a:run"]), (JAVA, ["app.Job:run"]), (GO, ["cmd/a:main.run"])],
)
def test_own_frames_of_four_languages(stack: str, frames: list[str]) -> None:
    assert own(stack, 5) == frames
