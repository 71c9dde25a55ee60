"""The fields of a job: where they are found by default, and what never is one."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.worker import identity, names
from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.settings import settings

NAMES = {
    "job_id": names.JOB_ID,
    "user": names.USER_ID,
    "workflow": names.WORKFLOW,
    "model": names.MODEL,
    "tier": names.JOB_TIER,
    "priority": names.JOB_PRIORITY,
    "type": names.JOB_TYPE,
    "correlation_id": names.CORRELATION_ID,
    "attempt": names.JOB_ATTEMPT,
    "backend": names.BACKEND,
    "images": names.IMAGES,
    "video_seconds": names.VIDEO_SECONDS,
    "audio_seconds": names.AUDIO_SECONDS,
    "characters": names.CHARACTERS,
    "megapixels": names.MEGAPIXELS,
}


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()
    assert HOOKS["identity.fields"].failures == 0


def known(message: object, queue: str | None = None) -> dict[str, Any]:
    """The fields by their short names."""
    short = {attribute: name for name, attribute in NAMES.items()}
    return {short[name]: value for name, value in identity.fields(message, queue).items()}


def plain(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(slots=True)
class Slotted:
    job_id: str
    user_id: str


class Plain:
    kind: ClassVar[str] = "of the class"

    def __init__(self) -> None:
        self.job_id = "p1"
        self.params = {"width": 1000, "height": 500}

    @property
    def user_id(self) -> str:
        raise SystemExit


MESSAGES: list[tuple[Any, dict[str, Any]]] = [
    (None, {}),
    (True, {}),
    ("", {}),
    (b"", {}),
    (b"\xff\xfe\x00", {}),
    ("two words", {}),
    ("https://cdn.example/in.png", {}),
    ("sk-" + "a" * 40, {}),
    ("{broken json", {}),
    ("[]", {}),
    ("job-1", {"job_id": "job-1"}),
    (b"job-1", {"job_id": "job-1"}),
    (b"123", {"job_id": "123"}),
    (123, {"job_id": "123"}),
    (uuid.UUID(int=5), {"job_id": str(uuid.UUID(int=5))}),
    ('"job-1"', {"job_id": "job-1"}),
    ("tts:123", {"job_id": "123", "type": "tts"}),
    ("job:123", {"job_id": "123"}),
    ("video:job:123", {"job_id": "video:job:123"}),
    ("id-1|user-2|portrait", {"job_id": "id-1"}),
    ('["job-1", {"width": 1}]', {"job_id": "job-1"}),
    ('[{"job_id": "a"}, {"job_id": "b"}]', {"job_id": "a"}),
    ({"job_id": 0}, {"job_id": "0"}),
    ({"jobId": "a", "task_id": "b", "id": "c"}, {"job_id": "a"}),
    ({"id": "a"}, {"job_id": "a"}),
    ({"metadata": {"id": "m"}}, {"job_id": "m"}),
    ({"params": {"id": "p"}}, {}),
    ({"input": {"job_id": "app"}, "id": "platform"}, {"job_id": "app"}),
    ({"input": {"seed": 1}, "id": "platform"}, {"job_id": "platform"}),
    ({"request_id": "r"}, {"job_id": "r", "correlation_id": "r"}),
    ({"job_id": "a", "request_id": "r"}, {"job_id": "a", "correlation_id": "r"}),
    ({"id": "a", "headers": {"x-correlation-id": "c"}}, {"job_id": "a", "correlation_id": "c"}),
    ({b"job_id": b"a", b"user_id": b"7"}, {"job_id": "a", "user": plain("7")}),
    ({b"data": b'{"job_id": "a", "tier": "pro"}'}, {"job_id": "a", "tier": "pro"}),
    ({"Message": '{"metadata": {"id": "m", "context": {"user_id": "u"}}}'}, {"job_id": "m", "user": plain("u")}),
    ({"Records": [{"body": '{"job_id": "r"}'}]}, {"job_id": "r"}),
    ({"args": ["job-7"], "kwargs": {}, "id": "framework"}, {"job_id": "job-7"}),
    ({"args": [None, "job-7"], "kwargs": {"ctx": None, "job": "job-7"}, "id": "framework"}, {"job_id": "job-7"}),
    ({"args": [], "kwargs": {"task_id": "t"}, "id": "framework"}, {"job_id": "t"}),
    ({"args": [{"job_id": "d"}], "kwargs": {}, "id": "framework"}, {"job_id": "d"}),
    ({"args": ['{"job_id": "d"}'], "kwargs": {}, "id": "framework"}, {"job_id": "d"}),
    ({"args": ["a prompt"], "kwargs": {}, "id": "framework"}, {"job_id": "framework"}),
    (
        {"args": ["flux-1"], "kwargs": {"model": "flux-1"}, "id": "framework"},
        {"job_id": "framework", "model": "flux-1"},
    ),
    ({"args": [Slotted("s1", "u1")], "kwargs": {}}, {"job_id": "s1", "user": plain("u1")}),
    (Slotted("s1", "u1"), {"job_id": "s1", "user": plain("u1")}),
    (Plain(), {"job_id": "p1", "megapixels": 0.5}),
    ({"meta": {"email": "A.B@example.com"}}, {"user": plain("a.b@example.com")}),
    ({"user": {"id": 7, "tier": "free"}}, {"user": plain("7"), "tier": "free"}),
    ({"user_id": "eyJ" + "a" * 20 + "." + "b" * 20}, {"user": plain("eyJ" + "a" * 20 + "." + "b" * 20)}),
    ({"user_id": None, "chat_id": 99}, {"user": plain("99")}),
    ({"user_id": True}, {}),
    ({"workflow": "portrait"}, {"workflow": "portrait"}),
    ({"workflow_path": "workflows/flux_t2i.json"}, {"workflow": "flux_t2i"}),
    ({"workflow": "C:\\flows\\wan.json"}, {"workflow": "wan"}),
    ({"task_type": "i2v"}, {"workflow": "i2v", "type": "i2v"}),
    ({"workflow_id": "w", "type": "image"}, {"workflow": "w", "type": "image"}),
    ({"model": "flux/dev"}, {"model": "flux/dev"}),
    ({"model": "https://models.example/x/sdxl.safetensors"}, {"model": "sdxl.safetensors"}),
    ({"model": "https://models.example/x?token=abc"}, {}),
    ({"model": {"name": "xtts"}}, {"model": "xtts"}),
    ({"type": "a" * 129}, {}),
    ({"type": "line\nline"}, {}),
    ({"type": {"a": 1}}, {}),
    ({"priority": 5}, {"priority": 5}),
    ({"priority": "high"}, {"priority": "high"}),
    ({"priority": 1.0}, {"priority": 1}),
    ({"attempt": 2}, {"attempt": 2}),
    ({"attempts": 3, "max_retries": 5}, {}),
    ({"comfyui_url": "http://u:p@gpu-1:8188/x?k=1"}, {"backend": "gpu-1:8188"}),
    ({"num_images": 4}, {"images": 4}),
    ({"n": 2.5}, {}),
    ({"batch_size": "3"}, {"images": 3}),
    ({"images": ["base64", "base64"]}, {}),
    ({"width": 1024, "height": "1024", "num_images": 2}, {"images": 2, "megapixels": 2.097152}),
    ({"size": "1280x720"}, {"megapixels": 0.9216}),
    ({"resolution": "720p"}, {}),
    ({"duration": 5}, {"video_seconds": 5}),
    ({"duration": "5s"}, {"video_seconds": 5}),
    ({"duration": "00:01:30"}, {"video_seconds": 90}),
    ({"duration_ms": 1500}, {"video_seconds": 1.5}),
    ({"num_frames": 81, "fps": 16}, {"video_seconds": 5.062}),
    ({"duration": -1}, {}),
    ({"duration": 1e12}, {}),
    ({"duration": 30, "type": "music"}, {"audio_seconds": 30, "type": "music", "workflow": "music"}),
    ({"text": "Hello"}, {"characters": 5}),
    ({"script": ["Hello", "you"]}, {"characters": 8}),
    ({"text": ""}, {}),
    ({"prompt": "a cat", "negative_prompt": "a dog", "api_key": "x", "s3_secret": "y"}, {}),
]


@pytest.mark.parametrize(
    ("message", "fields"), MESSAGES, ids=[f"{i}-{str(m)[:40]!r}" for i, (m, _) in enumerate(MESSAGES)]
)
def test_a_message_tells_these_fields_and_no_others(message: Any, fields: dict[str, Any]) -> None:
    assert known(message) == fields


def test_the_job_id_is_read_from_the_fields_or_from_the_message() -> None:
    assert identity.job_id("job-1") == "job-1"
    assert identity.job_id("ignored", {names.JOB_ID: "known"}) == "known"
    assert identity.job_id("ignored", {}) is None


@pytest.mark.parametrize(
    ("queue", "fields"),
    [
        ("video:high", {"priority": "high"}),
        ("jobs-free", {"tier": "free"}),
        ("PREMIUM", {"tier": "premium"}),
        ("video:jobs", {}),
        ("queue_2", {}),
    ],
)
def test_the_end_of_a_queues_name_tells_tier_or_priority(queue: str, fields: dict[str, Any]) -> None:
    assert known("a", queue) == {"job_id": "a", **fields}
    assert known({"tier": "x", "priority": "y"}, queue) == {"tier": "x", "priority": "y"}


def test_users_are_pseudonyms_with_a_key_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_USER_KEY", "k")
    expected = hmac.new(b"k", b"u1", hashlib.sha256).hexdigest()[:16]
    assert known({"user_id": "u1"}) == {"user": expected}
    assert identity.pseudonym("u1") == expected


def test_no_secret_becomes_a_field() -> None:
    secrets = [
        "sk-" + "x" * 30,
        "hf_" + "x" * 30,
        "ghp_" + "x" * 36,
        "AKIA" + "X" * 16,
        "Bearer " + "x" * 20,
        "eyJ" + "x" * 20 + "." + "y" * 20,
        "https://u:p" + "@host/x",
        "https://b.example/x?X-Amz-Signature=abc",
        "password=hunter22",
        "Ab1" * 14,
        "data:image/png;base64," + "A" * 20,
    ]
    for secret in secrets:
        for key in ("job_id", "workflow", "model", "tier", "priority", "type", "correlation_id"):
            assert secret not in str(identity.fields({key: secret}).values())


def test_a_message_too_long_to_be_parsed_gives_its_id() -> None:
    blob = "A" * 2_000_000
    assert known(f'{{"image": "{blob}", "id": 5, "job_id": "j-1"}}') == {"job_id": "j-1"}
    assert known(f'{{"task_id": "t-1", "image": "{blob}"}}'.encode()) == {"job_id": "t-1"}
    assert known(blob) == {}


def test_blobs_within_the_bound_are_passed_over() -> None:
    message = {"job_id": "a", "image": "A" * 900_000, "input": "B" * 900_000}
    assert known(message) == {"job_id": "a"}
    assert known(json.dumps(message)) == {"job_id": "a"}


def test_the_time_for_a_message_is_bounded() -> None:
    deep = "[" * 100_000
    nested: Any = {"job_id": "deep"}
    for _ in range(5_000):
        nested = {"data": nested}
    wide = {f"k{i}": i for i in range(300_000)} | {"job_id": "wide"}
    loop: dict[str, Any] = {"job_id": "loop"}
    loop["data"] = loop["input"] = [loop, loop]
    begin = time.process_time()
    assert known(deep) == {}
    assert known(nested) == {}
    assert known(wide) == {"job_id": "wide"}
    assert known(loop) == {"job_id": "loop"}
    assert time.process_time() - begin < 1.0  # each takes milliseconds


def test_nothing_of_the_message_is_changed() -> None:
    message = {"job_id": "a", "body": '{"user_id": "u"}', "args": [{"n": 1}]}
    before = json.dumps(message)
    identity.fields(message)
    assert json.dumps(message) == before


def test_arguments_of_a_call_go_by_the_names_of_their_parameters() -> None:
    class Worker:
        def render(self, job: str, user_id: str, *, width: int = 0) -> None: ...

    def generate(model: str, prompt: str) -> None: ...

    message = identity.call(Worker().render, ("job-1", "u1"), {"width": 5}, id="framework")
    assert message["kwargs"] == {"job": "job-1", "user_id": "u1", "width": 5}
    assert known(message) == {"job_id": "job-1", "user": plain("u1")}
    assert known(identity.call(generate, ("flux-1", "a-1"), {}, id="framework")) == {
        "job_id": "framework",
        "model": "flux-1",
    }
    assert identity.call(print, ("a",), {})["kwargs"] == {}


def test_the_environment_tells_the_model_where_the_job_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in identity.MODEL_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert identity.defaults() == {}
    monkeypatch.setenv("COMFY_MODEL", "wan-2.2")
    assert identity.defaults() == {names.MODEL: "wan-2.2"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from([*NAMES, "id", "args", "kwargs", "data", "body", "workflow", "width", "size"]), inner
        )
        | st.dictionaries(st.binary(), inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=25,
)


@pytest.mark.parametrize("huge", [1e256, -1e256, 2**70])
def test_a_priority_beyond_64_bits_is_a_short_text_or_none(huge: float) -> None:
    found = identity.fields({"job_id": "j-1", "priority": huge}).get("otel_pipeline.job.priority")
    assert found is None or (isinstance(found, str) and len(found) <= 64)


SIMPLE = (str, int, float, bool)


@given(JSON, st.none() | st.text())
def test_whatever_comes_it_is_read_without_a_fault(message: Any, queue: str | None) -> None:
    for each in (message, json.dumps(message, default=repr, skipkeys=True), repr(message).encode()):
        found = identity.fields(each, queue)
        assert all(type(value) in SIMPLE and len(str(value)) <= 256 for value in found.values())
        assert HOOKS["identity.fields"].failures == 0


@given(st.binary())
def test_any_bytes_are_read_without_a_fault(message: bytes) -> None:
    identity.fields(message)
    assert HOOKS["identity.fields"].failures == 0
