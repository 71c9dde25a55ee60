"""`OTEL_PIPELINE_JOB_FIELDS`: the operator's own paths, their errors, and the limits of what they bring in."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.worker import identity, names
from otel_pipeline.worker.guard import HOOKS
from otel_pipeline.worker.identity import field_plan
from otel_pipeline.worker.reading import documents
from otel_pipeline.worker.settings import settings

Configure = Callable[[Any], None]


@pytest.fixture(autouse=True)
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    def set_to(document: Any) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        monkeypatch.setenv("OTEL_PIPELINE_JOB_FIELDS", text)
        settings.cache_clear()

    field_plan.plans.cache_clear()
    identity._distinct.clear()
    settings.cache_clear()
    yield set_to
    settings.cache_clear()
    assert HOOKS["identity.fields"].failures == 0


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING, "otel_pipeline.worker"):
        yield lambda: [record.getMessage() for record in caplog.records]


YAML = """
job_id: metadata.id
user: [meta.email, kwargs.user_id]
workflow: Message|json.name
tier: env:OTELP_TEST_TIER
attribute.venue: canvas.venue
acme.canvas: canvas.name
"""


def test_yaml_json_a_file_and_the_short_form_say_the_same(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    monkeypatch.setenv("OTELP_TEST_TIER", "gold")
    file = tmp_path / "fields.yaml"
    file.write_text(YAML)
    short = (
        "job_id=metadata.id; user=meta.email|kwargs.user_id; workflow=Message|json.name\n"
        "tier=env:OTELP_TEST_TIER; attribute.venue=canvas.venue; acme.canvas=canvas.name"
    )
    as_json = {
        "job_id": "metadata.id",
        "user": ["meta.email", "kwargs.user_id"],
        "workflow": "Message|json.name",
        "tier": "env:OTELP_TEST_TIER",
        "attribute": {"venue": "canvas.venue"},
        "acme.canvas": "canvas.name",
    }
    message = {
        "metadata": {"id": "m1"},
        "kwargs": {"user_id": "u1"},
        "Message": '{"name": "portrait"}',
        "canvas": {"venue": "hall", "name": "wall"},
    }
    found = []
    for document in (YAML, as_json, str(file), short):
        configure(document)
        found.append(identity.fields(message))
    assert told() == []
    assert all(each == found[0] for each in found)
    assert found[0] == {
        names.JOB_ID: "m1",
        names.USER_ID: identity.pseudonym("u1"),
        names.WORKFLOW: "portrait",
        names.JOB_TIER: "gold",
        "venue": "hall",
        "acme.canvas": "wall",
    }


def test_configured_paths_go_before_the_defaults_which_stay(configure: Configure) -> None:
    configure({"job_id": "ref", "user": []})
    assert identity.fields({"ref": "r", "job_id": "j", "user_id": "u"}) == {names.JOB_ID: "r"}
    assert identity.fields({"job_id": "j"}) == {names.JOB_ID: "j"}


def test_configured_paths_read_bare_texts(configure: Configure) -> None:
    configure({"user": r"~^[^|]+\|([^|]+)~", "workflow": r"~\|(?P<workflow>\w+)$~"})
    assert identity.fields("id-1|user-2|portrait") == {
        names.JOB_ID: "id-1",
        names.USER_ID: identity.pseudonym("user-2"),
        names.WORKFLOW: "portrait",
    }


def test_a_queue_has_fields_of_its_own(configure: Configure) -> None:
    configure({"type": "kind", "queues": {"tts:*": {"type": "voice", "characters": "lines|len"}}})
    message = {"kind": "general", "voice": "anna", "lines": "hello"}
    assert identity.fields(message, "tts:jobs") == {names.JOB_TYPE: "anna", names.CHARACTERS: 5}
    assert identity.fields(message, "video") == {names.JOB_TYPE: "general"}
    assert identity.fields(message) == {names.JOB_TYPE: "general"}


def test_side_keys_are_told_and_read(configure: Configure) -> None:
    configure(
        {"side": "orchestrator:job:{id}", "user": "@key{users:{id}}.name", "queues": {"tts:*": {"side": "tts:{id}"}}}
    )
    assert identity.side_keys("7") == ["orchestrator:job:7", "users:7"]
    assert identity.side_keys("7", "tts:jobs") == ["tts:7", "orchestrator:job:7", "users:7"]
    named = {names.USER_ID: identity.pseudonym("ann")}
    assert identity.fields(identity.Side("users:7", {b"name": b"ann"}, "7")) == named
    assert identity.fields(identity.Side("users:7", '{"name": "ann"}', "7")) == named
    assert identity.fields({"name": "ann"}) == named
    found = identity.fields(
        identity.Side("orchestrator:job:7", {b"workflow": b"portrait", b"params": b'{"width": 1000}'}, "7")
    )
    assert found == {names.WORKFLOW: "portrait"}


def test_quantities_can_be_configured(configure: Configure) -> None:
    configure({"images": "shots", "video_seconds": "clip.len_s", "megapixels": "mp", "audio_seconds": "voice"})
    assert identity.fields({"shots": [1, 2, 3], "clip": {"len_s": "5s"}, "mp": 2.5, "voice": -1}) == {
        names.IMAGES: 3,
        names.VIDEO_SECONDS: 5.0,
        names.MEGAPIXELS: 2.5,
    }


def test_what_is_configured_passes_the_same_checks(configure: Configure) -> None:
    configure({"attribute.a": "a", "attribute.b": "b", "workflow": "c", "user": "d"})
    secret = "hf_" + "x" * 30
    found = identity.fields({"a": secret, "b": "x" * 300, "c": {"not": "a scalar"}, "d": secret})
    assert found == {names.USER_ID: identity.pseudonym(secret)}


def test_a_dimension_has_a_bounded_number_of_values(configure: Configure) -> None:
    configure({"attribute.venue": "v"})
    seen = [identity.fields({"v": f"v{i}"})["venue"] for i in range(identity.DISTINCT_MAX + 5)]
    assert seen[: identity.DISTINCT_MAX] == [f"v{i}" for i in range(identity.DISTINCT_MAX)]
    assert set(seen[identity.DISTINCT_MAX :]) == {"_other"}
    assert identity.fields({"v": "v3"}) == {"venue": "v3"}


def test_a_mistake_is_told_once_and_the_other_fields_are_read(
    configure: Configure, told: Callable[[], list[str]]
) -> None:
    configure(
        {"job_id": "a..b", "usr": "x", "user": "uid", "tier": ["t[", "t"], "queues": {"q": {"model": 5}}, "side": "k"}
    )
    for _ in range(3):
        assert identity.fields({"uid": "u", "t": "gold"}) == {
            names.USER_ID: identity.pseudonym("u"),
            names.JOB_TIER: "gold",
        }
    messages = told()
    assert len(messages) == 4
    assert "OTEL_PIPELINE_JOB_FIELDS: queues.q.model: '5' is no path" in messages[0]
    assert "job_id: path 'a..b' cannot be read at character 2: allowed here: a key" in messages[1]
    assert "usr: no such field: allowed is one of job_id, user, workflow" in messages[2]
    assert "tier: path 't[' cannot be read at character 1" in messages[3]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ("[1, 2]", "it is a mapping"),
        ("just words", "it is a mapping"),
        ("{a: [}", "neither YAML nor JSON"),
        ("/no/such/file.yaml", "the file cannot be read"),
        ("x" * (documents.DOCUMENT_MAX + 1), "longer than"),
        ('{"queues": 5}', "queues: it is a mapping"),
        ('{"queues": {"q": 5}}', "queues.q: it is a mapping"),
        ('{"attribute.a b": "x"}', "no such field"),
        (json.dumps({"side": [f"k{i}" for i in range(9)]}), "more than 8 keys"),
        (json.dumps({f"attribute.a{i}": "x" for i in range(65)}), "more than 64 fields"),
    ],
)
def test_a_document_of_another_form_is_told_of(
    configure: Configure, told: Callable[[], list[str]], document: str, problem: str
) -> None:
    configure(document)
    assert identity.fields("job-1") == {names.JOB_ID: "job-1"}
    (message,) = told()
    assert message.startswith("OTEL_PIPELINE_JOB_FIELDS: ")
    assert problem in message


def test_without_pyyaml_json_and_the_short_form_are_read(
    configure: Configure, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    configure({"job_id": "ref"})
    assert identity.fields({"ref": "r"}) == {names.JOB_ID: "r"}
    configure("job_id=ref2")
    assert identity.fields({"ref2": "r"}) == {names.JOB_ID: "r"}
    configure("job_id: ref3")
    identity.fields("a")
    assert "YAML needs the package PyYAML" in told()[0]


def test_the_short_form_keeps_what_is_within_a_regular_expression() -> None:
    assert documents.read("a=x|~p;q~; b=y", "V") == {"a": "x|~p;q~", "b": "y"}
