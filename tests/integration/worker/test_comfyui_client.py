"""Every capture through every client library: the same prompts, outcomes, nodes and jobs, whichever library is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.comfyui_expected import JOBS, PROMPTS, Expected, prompts_of
from tests.support.comfyui_replay import Passage, Replay, captures, replay

ROOT = Path(__file__).parents[3]
POLLING = ("httpx", "httpx.async", "requests", "aiohttp", "urllib")
LISTENING = (
    ("requests", "websocket"),
    ("urllib", "websocketapp"),
    ("httpx.async", "websockets"),
    ("httpx", "websockets.sync"),
    ("aiohttp", "aiohttp"),
)
PAIRS = (*((http, "") for http in POLLING), *LISTENING)
ADDED = {"traceparent", "tracestate", "baggage"}


class Walked:
    """What one pair of libraries made of all captures."""

    def __init__(self, pair: tuple[str, str], told: dict[str, Any], server: Replay) -> None:
        self.pair, self.failures, self.counted, self.spans = pair, told["failures"], told["counted"], told["spans"]
        self._server = server

    def job(self, number: str) -> Any:
        return next(span for span in self.spans if span["name"] == f"process {number}")

    def of(self, number: str, name: str) -> list[Any]:
        """Spans of one capture, in the order of their beginnings."""
        trace = self.job(number)["trace"]
        found = [span for span in self.spans if span["trace"] == trace and span["name"].split(" ")[0] == name]
        return sorted(found, key=lambda span: span["start_ns"])

    def below(self, span: Any, name: str) -> list[Any]:
        found = [each for each in self.spans if each["parent"] == span["id"] and each["name"].split(" ")[0] == name]
        return sorted(found, key=lambda each: each["end_ns"])

    def passage(self, number: str) -> Passage:
        return self._server.passage("+".join(self.pair), number)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Replay]]:
    with replay() as running:
        yield running


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: "+".join(filter(None, pair)))
def walked(request: pytest.FixtureRequest, server: tuple[str, Replay]) -> Walked:
    url, played = server
    pair: tuple[str, str] = request.param
    environment = {**os.environ, "OTEL_PIPELINE_COMFYUI_URLS": url, "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "tests.support.comfyui_clients", url, "+".join(pair), *filter(None, pair)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return Walked(pair, json.loads(ran.stdout.splitlines()[-1]), played)


def _seen(walked: Walked, span: Any) -> Expected:
    told = span["attributes"]
    nodes = walked.below(span, "comfyui.node")
    return Expected(
        told["comfyui.outcome"],
        told.get("error.type"),
        told.get("comfyui.node.cached_count"),
        " ".join(each["attributes"]["comfyui.node.id"] + "!" * (each["status"] == "ERROR") for each in nodes),
        told["comfyui.outputs"],
        told.get("comfyui.validation.error_type"),
    )


@pytest.mark.parametrize("number", PROMPTS)
def test_each_capture_gives_the_expected_prompts(walked: Walked, number: str) -> None:
    spans = walked.of(number, "comfyui.prompt")
    expected = prompts_of(number, listening=bool(walked.pair[1]))
    assert [_seen(walked, span) for span in spans] == expected
    assert [span["status"] == "ERROR" for span in spans] == [each.is_error for each in expected]
    assert {span["kind"] for span in spans} <= {"CLIENT"}


@pytest.mark.parametrize("number", PROMPTS)
def test_each_capture_gives_the_job_its_outcome(walked: Walked, number: str) -> None:
    told = walked.job(number)["attributes"]
    names = ("otel_pipeline.job.outcome", "otel_pipeline.job.outcome_source", "error.type")
    assert tuple(map(told.get, names)) == JOBS[number]


def test_no_hook_failed_and_there_is_one_trace_a_job(walked: Walked) -> None:
    assert walked.failures == {}
    assert len({span["trace"] for span in walked.spans}) == len(captures())


def test_prompts_are_children_of_the_job_and_say_where_they_ran(walked: Walked) -> None:
    for number in PROMPTS:
        for span in walked.of(number, "comfyui.prompt"):
            assert span["parent"] == walked.job(number)["id"]
            told = span["attributes"]
            assert told["otel_pipeline.backend.name"] == f"127.0.0.1:{told['server.port']}"
            assert told["otel_pipeline.job.id"] == number
    assert walked.job("01")["attributes"]["otel_pipeline.backend.name"].startswith("127.0.0.1:")


def test_polling_leaves_no_spans_but_is_counted(walked: Walked) -> None:
    assert not [span for span in walked.spans if span["name"] in {"GET", "HEAD"}]
    assert walked.counted["history 2xx"] == 26
    assert walked.counted["prompt 4xx"] == 12
    assert walked.counted["prompt 5xx"] == 1
    if not walked.pair[1]:
        assert walked.of("05", "comfyui.prompt")[0]["attributes"]["comfyui.polls"] == 1


def test_the_post_of_the_official_instrumentation_is_a_child_of_the_prompt(walked: Walked) -> None:
    with_official = walked.pair[0].startswith("httpx")
    for span in walked.of("05", "comfyui.prompt"):
        assert len(walked.below(span, "POST")) == with_official


def test_a_download_lasts_until_its_body_is_read_and_belongs_to_its_prompt(walked: Walked) -> None:
    (prompt,) = walked.of("01", "comfyui.prompt")
    (download,) = walked.of("01", "comfyui.download")
    assert download["parent"] == prompt["id"]
    assert download["attributes"]["http.response.body.size"] == 4100
    assert download["status"] == "UNSET"


def test_bodies_differ_from_what_the_host_sent_only_by_the_context_in_extra_data(walked: Walked) -> None:
    for number, capture in captures().items():
        recorded = [each["request_body"] for each in capture["http"] if each["method"] == "POST"]
        arrived = [body for method, _, body in walked.passage(number).received if method == "POST"]
        for given, text in zip(recorded, arrived, strict=True):
            if not isinstance(given, dict):
                assert text == (given or "")
                continue
            body = json.loads(text)
            extra = body.get("extra_data", {})
            added = ADDED - set(given.get("extra_data", {}))
            left = {key: value for key, value in extra.items() if key not in added}
            if left or "extra_data" in given:
                body["extra_data"] = left
            else:
                body.pop("extra_data", None)
            assert body == given


def test_the_context_in_extra_data_is_that_of_the_prompt_span(walked: Walked) -> None:
    (prompt,) = walked.of("05", "comfyui.prompt")
    method, path, text = walked.passage("05").received[0]
    assert (method, path) == ("POST", "/prompt")
    traceparent = json.loads(text)["extra_data"]["traceparent"].split("-")
    assert (int(traceparent[1], 16), int(traceparent[2], 16)) == (prompt["trace"], prompt["id"])


def test_a_context_that_the_host_put_there_itself_is_left_alone(walked: Walked) -> None:
    _, _, text = walked.passage("02").received[0]
    assert json.loads(text) == captures()["02"]["http"][0]["request_body"]


def test_queue_wait_and_execution_come_from_the_servers_clock(walked: Walked) -> None:
    told = walked.of("16", "comfyui.prompt")[0]["attributes"]
    assert told["comfyui.execution.duration"] == pytest.approx(1.012)
    if not walked.pair[1]:
        assert told["comfyui.queue.wait"] == pytest.approx(0.001)


def test_errors_carry_type_message_and_stack_but_no_values(walked: Walked) -> None:
    (prompt,) = walked.of("05", "comfyui.prompt")
    (told,) = [attributes for name, attributes in prompt["events"] if name == "exception"]
    assert told["exception.type"] == "ValueError"
    assert told["exception.message"] == "boom from node"
    assert (told["comfyui.node.id"], told["comfyui.node.type"]) == ("3", "ProbeRaise")
    assert "tensor(" not in json.dumps(walked.spans)
