"""What Redis keys are for, by their names and by the operator's word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from otel_pipeline.worker.adapters.redis import keys as redis_keys
from otel_pipeline.worker.adapters.redis.keys import Purpose, is_delay, is_reply, purpose, site
from otel_pipeline.worker.settings import Settings, settings

IDENTIFIER = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    purpose.cache_clear()
    settings.cache_clear()
    yield
    purpose.cache_clear()
    settings.cache_clear()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("image:jobs", Purpose.QUEUE),
        ("video_queue", Purpose.QUEUE),
        ("renderQueue", Purpose.QUEUE),
        ("event_queue", Purpose.QUEUE),
        ("tasks:scheduled", Purpose.QUEUE),
        (f"queue:{IDENTIFIER}", Purpose.QUEUE),
        ("uploads", Purpose.PERHAPS),
        ("comfy", Purpose.PERHAPS),
        ("celery", Purpose.PERHAPS),
        ("videos:processing", Purpose.HELD),
        ("in-flight", Purpose.HELD),
        ("queue:in_progress", Purpose.HELD),
        (f"result:{IDENTIFIER}", Purpose.OTHER),
        ("jobs:results", Purpose.OTHER),
        ("jobs:dead", Purpose.OTHER),
        ("dead_letter", Purpose.OTHER),
        ("gpu:slots", Purpose.OTHER),
        ("job:events", Purpose.OTHER),
        ("recent:images", Purpose.OTHER),
        (f"job:{IDENTIFIER}", Purpose.OTHER),
        ("chat:1234567", Purpose.OTHER),
        ("rq:queue:default", Purpose.FRAMEWORK),
        ("arq:queue", Purpose.FRAMEWORK),
        ("bull:videos:wait", Purpose.FRAMEWORK),
        ("dramatiq:default", Purpose.FRAMEWORK),
        ("_kombu.binding.gpu", Purpose.FRAMEWORK),
        ("unacked_index", Purpose.FRAMEWORK),
        ("celery-task-meta-1", Purpose.FRAMEWORK),
        ("app:celery-task-meta-1", Purpose.FRAMEWORK),
        ("celery\x06\x163", Purpose.FRAMEWORK),
        ("otelp:ctx:{1}", Purpose.FRAMEWORK),
    ],
)
def test_the_name_tells(key: str, expected: Purpose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(redis_keys.sys.modules, "kombu", raising=False)
    assert purpose(key) is expected


def test_a_list_named_celery_is_celerys_once_that_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(redis_keys.sys.modules, "kombu", redis_keys)
    assert purpose("celery") is Purpose.FRAMEWORK


def test_the_operator_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        redis_keys, "settings", lambda: Settings(queues=("jobs:results", "in:*"), queues_excluded=("in:x",))
    )
    found = {key: purpose(key) for key in ("jobs:results", "in:processing", "in:x", "image:jobs")}
    assert found == {
        "jobs:results": Purpose.QUEUE,
        "in:processing": Purpose.QUEUE,
        "in:x": Purpose.OTHER,
        "image:jobs": Purpose.OTHER,
    }


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (f"result:{IDENTIFIER}", True),
        ("response_0123456789ab", True),
        ("results", False),
        (f"queue:{IDENTIFIER}", False),
    ],
)
def test_an_answer_to_one_question_is_told_by_its_id(key: str, expected: bool) -> None:  # noqa: FBT001
    assert is_reply(key) is expected


def test_delays() -> None:
    assert [is_delay(key) for key in ("jobs:delayed", "retry", "scheduled_jobs", "jobs")] == [True, True, True, False]


def test_the_line_of_the_program_is_found() -> None:
    found = site()
    assert found is not None
    assert found[0].co_filename == __file__


def test_a_frameworks_own_commands_are_told_from_the_programs() -> None:
    space = {"__name__": "kombu.transport.redis", "site": site}
    assert eval("site()", space) is None  # noqa: S307  stands for a module of that name
