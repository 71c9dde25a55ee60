"""The recordings that the ComfyUI stand-in plays back, and the rule that picks one. Pure: no socket, no clock.

A capture holds what a real ComfyUI 0.26.0 was asked, answered and sent over its WebSocket. Every POST /prompt in it
becomes a `Recording`. `Library.choose` picks one for a posted body; the first match wins:

 1. The body is no JSON, or its `prompt` is no object: as recorded (500, or 400 `no_prompt`).
 2. `prompt` equals, value by value, one that the real server refused, or accepted in half: that answer.
 3. A node has a class that occurs in no recording: the refusal of `NoSuchNode`, with this node's names.
 4. A run with the same multiset of class types was recorded: that run. EmptyImage, ImageInvert, SaveImage was recorded
    three times, so here the cache decides, as on a real server: all cached if exactly this workflow ran before, partly
    cached if it ran with another SaveImage, nothing cached otherwise.
 5. Anything else: the plain successful run.

Messages name the nodes of the recording (1, 2, 3, and 9 for the output), so a workflow does well to use these ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final, Literal

JsonObject = dict[str, Any]
"""ComfyUI's JSON: a foreign border, so its values stay untyped."""

Cached = Literal["nothing", "part", "all"]

RUNS: Final = (
    "01_success",
    "05_execution_error",
    "06_out_of_memory",
    "09_progress",
    "12_async_node",
    "13_expanding_node",
    "18_execution_blocker",
)
CACHED_RUNS: Final[Mapping[Cached, str]] = {"part": "03_partly_cached", "all": "02_cached_rerun"}
REFUSALS: Final = "04_validation_errors"
INTERRUPTED: Final = "07_interrupt"
IDLE: Final = "00_idle_gets"


@dataclass(frozen=True, slots=True)
class Message:
    """One WebSocket message; `after_s` counts from the answer to POST /prompt."""

    after_s: float
    kind: str
    data: JsonObject


@dataclass(frozen=True, slots=True)
class Recording:
    """What a real server answered to one POST /prompt, and what it sent afterwards (nothing if it refused)."""

    name: str
    workflow: JsonObject | None
    status: int
    answer: JsonObject | str
    messages: tuple[Message, ...]

    @property
    def prompt_id(self) -> str:
        return str(self.answer.get("prompt_id", "")) if isinstance(self.answer, dict) else ""

    @property
    def duration_s(self) -> float:
        return self.messages[-1].after_s if self.messages else 0.0

    def stretch(self, speed: float, run_s_min: float) -> float:
        """The factor on recorded times: 1/speed, or more, so that a run that executes nodes lasts `run_s_min`.

        A prompt that comes from the cache alone stays as quick as it was.
        """
        executes = any(message.kind == "executing" and message.data["node"] for message in self.messages)
        if not executes or not self.duration_s:
            return 1 / speed
        return max(1 / speed, run_s_min / self.duration_s)


@dataclass(frozen=True, slots=True)
class Library:
    """All recordings, by what they are good for."""

    runs: tuple[Recording, ...]
    cached: Mapping[Cached, Recording]
    answers: tuple[Recording, ...]
    interrupted: Recording
    idle: Mapping[str, Any]

    def choose(self, body: object, cached: Cached) -> Recording:
        """The recording for a posted body (None: it was no JSON); the rule stands at the top of this file."""
        workflow = body.get("prompt") if isinstance(body, dict) else None
        if body is None:
            return next(each for each in self.answers if each.status == 500)
        if not isinstance(workflow, dict):
            return next(each for each in self.answers if each.status == 400 and each.workflow is None)
        for answer in self.answers:
            if answer.workflow == workflow:
                return answer
        if (stranger := self._unknown_node(workflow)) is not None:
            return self._missing_node_type(*stranger)
        return self._run(workflow, cached)

    def _run(self, workflow: JsonObject, cached: Cached) -> Recording:
        plain, types = self.runs[0], class_types(workflow)
        if cached in self.cached and types == class_types(plain.workflow):
            return self.cached[cached]
        return next((each for each in self.runs if class_types(each.workflow) == types), plain)

    def _unknown_node(self, workflow: JsonObject) -> tuple[str, str] | None:
        known = {kind for each in (*self.runs, *self.answers) for kind in class_types(each.workflow)} - {"NoSuchNode"}
        for node_id, node in workflow.items():
            kind = str(node.get("class_type")) if isinstance(node, dict) else "None"
            if kind not in known:
                return node_id, kind
        return None

    def _missing_node_type(self, node_id: str, kind: str) -> Recording:
        recorded = next(each for each in self.answers if class_types(each.workflow)["NoSuchNode"])
        text = json.dumps(recorded.answer)
        text = text.replace("NoSuchNode", json.dumps(kind)[1:-1]).replace("#1'", f"#{json.dumps(node_id)[1:-1]}'")
        answer = json.loads(text)
        answer["error"]["extra_info"]["node_id"] = node_id
        return replace(recorded, answer=answer)


def class_types(workflow: object) -> Counter[str]:
    """How often each node class occurs in a workflow; nodes without a class do not count."""
    nodes = workflow.values() if isinstance(workflow, dict) else ()
    return Counter(str(node["class_type"]) for node in nodes if isinstance(node, dict) and node.get("class_type"))


def load() -> Library:
    """Reads the captures that are part of the package."""
    cached = {state: next(_recordings(name)) for state, name in CACHED_RUNS.items()}
    return Library(
        runs=tuple(next(_recordings(name)) for name in RUNS),
        cached=cached,
        answers=tuple(_recordings(REFUSALS)),
        interrupted=next(_recordings(INTERRUPTED)),
        idle={exchange["path"]: exchange["response_body"] for exchange in _capture(IDLE)["http"]},
    )


def _recordings(name: str) -> Iterator[Recording]:
    capture = _capture(name)
    for exchange in capture["http"]:
        if (exchange["method"], exchange["path"]) != ("POST", "/prompt"):
            continue
        body, accepted = exchange["request_body"], exchange["status"] == 200
        yield Recording(
            name=name,
            workflow=body.get("prompt") if isinstance(body, dict) else None,
            status=exchange["status"],
            answer=exchange["response_body"],
            # Of the refusals one is accepted in half; the socket's messages are its own.
            messages=tuple(_messages(capture["ws"])) if accepted else (),
        )


def _messages(recorded: list[JsonObject]) -> Iterator[Message]:
    # The first message greets the client; the second announces the prompt, so it marks the time of the POST.
    _, *messages = recorded
    start_ms = messages[0]["t_ms"]
    for each in messages:
        yield Message((each["t_ms"] - start_ms) / 1000, each["text"]["type"], each["text"]["data"])


def _capture(name: str) -> JsonObject:
    capture: JsonObject = json.loads((files(__package__) / "captures" / f"{name}.json").read_text("utf-8"))
    return capture
