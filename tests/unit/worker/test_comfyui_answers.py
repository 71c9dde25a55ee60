"""What ComfyUI's answers and messages say, on the recorded ones and on odd ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_pipeline.worker.comfyui import answers
from otel_pipeline.worker.comfyui.answers import Accepted, End
from tests.support.comfyui_replay import captures


def _exchange(number: str, place: int) -> Any:
    return captures()[number]["http"][place]


def _answer(number: str, place: int) -> Accepted | End | None:
    exchange = _exchange(number, place)
    body = exchange["response_body"]
    return answers.answer(exchange["status"], (body if isinstance(body, str) else json.dumps(body)).encode())


def test_an_accepted_prompt_has_an_id_and_a_number() -> None:
    assert _answer("15", 1) == Accepted("f50dc6c2-3cf7-405a-9421-70e0cc033f2f", -26)


def test_a_prompt_accepted_in_part_tells_what_was_refused() -> None:
    told = _answer("04", 10)
    assert isinstance(told, Accepted)
    assert told.rejected == "required_input_missing"
    assert told.message == "SaveImage: Required input is missing"


def test_a_refused_prompt_tells_its_type_and_the_first_node_error() -> None:
    told = _answer("04", 6)
    assert isinstance(told, End)
    assert (told.outcome, told.error_type, told.detail) == (
        "refused",
        "prompt_outputs_failed_validation",
        "value_smaller_than_min",
    )
    assert told.message is not None
    assert told.message.startswith("Prompt outputs failed validation: EmptyImage: ")


@pytest.mark.parametrize("cut", [60, 100, 1000])
def test_a_refusal_that_was_cut_still_tells_its_type(cut: int) -> None:
    body = json.dumps(_exchange("04", 5)["response_body"]).encode()[:cut]
    told = answers.answer(400, body)
    assert isinstance(told, End)
    assert told.error_type == "prompt_outputs_failed_validation"


@pytest.mark.parametrize("body", [None, b"", b"<html>502</html>", b"[]", b"{}", b'{"error": "text"}', b"\xff"])
def test_a_refusal_in_another_form_has_the_status_for_a_type(body: bytes | None) -> None:
    told = answers.answer(502, body)
    assert isinstance(told, End)
    assert (told.outcome, told.error_type) == ("refused", "502")


@pytest.mark.parametrize("body", [None, b"", b"{}", b"[1]", b'{"prompt_id": null}', b'{"prompt_id": true}'])
def test_a_success_that_names_no_prompt_tells_nothing(body: bytes | None) -> None:
    assert answers.answer(200, body) is None


def _history(number: str) -> tuple[bytes, str]:
    exchange = [each for each in captures()[number]["http"] if each["path"].startswith("/history/")][-1]
    return json.dumps(exchange["response_body"]).encode(), exchange["path"].rsplit("/", 1)[-1]


@pytest.mark.parametrize(
    ("number", "outcome", "error_type"),
    [
        ("01", "success", None),
        ("05", "failed", "ValueError"),
        ("06", "failed", "torch.OutOfMemoryError"),
        ("07", "interrupted", "interrupted"),
        ("18", "success", None),
    ],
)
def test_the_last_message_of_a_history_entry_tells_the_end(number: str, outcome: str, error_type: str | None) -> None:
    body, prompt_id = _history(number)
    entry = answers.entry_in(body, prompt_id)
    assert entry is not None
    end = answers.history_end(entry)
    assert end is not None
    assert (end.outcome, end.error_type) == (outcome, error_type)
    assert end.create_ms is not None
    assert end.start_ms is not None
    assert end.end_ms is not None
    assert end.create_ms <= end.start_ms <= end.end_ms
    assert "tensor(" not in repr(end)


def test_an_entry_is_found_in_a_long_history_that_was_cut() -> None:
    body, prompt_id = _history("05")
    other = json.dumps({"x": {"text": "q" * 1000}})[1:-1].encode()
    assert answers.entry_in(b'q"}}, ' + other + b", " + body[1:-1] + b", " + other + b"}", prompt_id) is not None
    assert answers.entry_in(body, "another") is None
    assert answers.entry_in(body[:300], prompt_id) is None


@pytest.mark.parametrize("entry", [{}, {"status": None}, {"prompt": []}])
def test_an_entry_without_a_status_is_no_end(entry: dict[str, Any]) -> None:
    assert answers.history_end(entry) is None


def test_an_entry_of_an_old_server_has_outputs_only() -> None:
    end = answers.history_end({"outputs": {"9": {"gifs": [{"filename": "a.mp4", "subfolder": "v"}]}}, "prompt": [1]})
    assert end == End("success", files=(("a.mp4", "v"),))


def test_jobs_tell_cancelled_from_failed() -> None:
    end = answers.job_end(_exchange("19", 6)["response_body"])
    assert end is not None
    assert (end.outcome, end.error_type, end.start_ms, end.end_ms) == (
        "interrupted",
        "interrupted",
        1795294152598,
        1795294152955,
    )
    assert answers.job_end(_exchange("19", 3)["response_body"]) is None
    failed = answers.job_end({"status": "failed", "execution_error": {"exception_type": "X", "exception_message": "m"}})
    assert failed is not None
    assert (failed.outcome, failed.error_type, failed.message) == ("failed", "X", "m")


def test_an_execution_blocked_message_is_not_the_end() -> None:
    errors = [each["text"] for each in captures()["18"]["ws"] if each.get("text", {}).get("type") == "execution_error"]
    assert len(errors) == 1
    assert answers.message_end("execution_error", errors[0]["data"]) is None


def test_the_end_of_execution_is_an_executing_message_without_node() -> None:
    assert answers.message_end("executing", {"node": None, "prompt_id": "p"}) == End("success")
    assert answers.message_end("executing", {"node": "3"}) is None
    assert answers.message_end("executing", {"prompt_id": "p"}) is None


def test_long_texts_are_cut() -> None:
    end = answers.message_end(
        "execution_error",
        {"exception_type": "T" * 999, "exception_message": "m" * 9999, "traceback": ["line\n"] * 9999},
    )
    assert end is not None
    assert (len(end.error_type or ""), len(end.message or ""), len(end.stack or "")) == (128, 256, 4096)
