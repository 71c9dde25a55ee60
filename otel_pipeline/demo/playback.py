"""One prompt of the ComfyUI stand-in: a recording with this prompt's id, files and times. Pure: no socket, no clock.

The history entry is a fold over the messages sent, as it is in ComfyUI; a test proves for every capture that the
fold gives what the real server answered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from otel_pipeline.demo.scenarios import Cached, JsonObject, Message, Recording

OUTPUT_CLASS: Final = "SaveImage"
REMEMBERED_MAX: Final = 10_000
"""Workflows the cache remembers; as many as ComfyUI keeps history entries."""


class NodeCache:
    """Which workflows ran before: what lets a real server skip nodes."""

    def __init__(self) -> None:
        self._newest = 0
        self._numbers: dict[str, int] = {}
        self._without_outputs: dict[str, None] = {}

    def state(self, workflow: object) -> Cached:
        if not isinstance(workflow, dict):
            return "nothing"
        if _fingerprint(workflow) in self._numbers:
            return "all"
        return "part" if _fingerprint(_upstream(workflow)) in self._without_outputs else "nothing"

    def remember(self, workflow: JsonObject) -> int:
        """The number in the names of this workflow's files: a new one, or the old one if it ran before."""
        whole, upstream = _fingerprint(workflow), _fingerprint(_upstream(workflow))
        if whole not in self._numbers:
            self._newest += 1
            self._numbers[whole] = self._newest
        self._without_outputs[upstream] = None
        for memory in (self._numbers, self._without_outputs):
            if len(memory) > REMEMBERED_MAX:
                memory.pop(next(iter(memory)))
        return self._numbers[whole]


@dataclass(slots=True)
class Run:
    """A posted prompt, from the queue to the history."""

    recording: Recording
    prompt_id: str
    number: float
    workflow: JsonObject
    extra_data: JsonObject
    file_number: int
    node: str | None = None
    executed: list[str] = field(default_factory=list)
    sent: list[tuple[str, JsonObject]] = field(default_factory=list)

    @property
    def client_id(self) -> str | None:
        return self.extra_data.get("client_id")

    def answer(self) -> JsonObject:
        """The body for POST /prompt."""
        return {**self._adapted(self.recording.answer), "prompt_id": self.prompt_id, "number": self.number}

    def queue_item(self) -> list[Any]:
        """How the prompt stands in GET /queue and in its history entry."""
        errors = self.recording.answer.get("node_errors", {}) if isinstance(self.recording.answer, dict) else {}
        outputs = [key for key, node in self.workflow.items() if _is_output(node) and key not in errors]
        return [self.number, self.prompt_id, self.workflow, self.extra_data, outputs]

    def send(self, message: Message, now_ms: int) -> JsonObject:
        """The message as it goes out now; the run remembers it for the history."""
        data = self._adapted(message.data)
        if "timestamp" in data:
            data["timestamp"] = now_ms
        if message.kind == "executing" and data["node"]:
            self.executed += [self.node] if self.node else []
            self.node = data["node"]
        self.sent.append((message.kind, data))
        return {"type": message.kind, "data": data}

    def interruption(self, message: Message) -> Message:
        """The recorded `execution_interrupted`, about the node that this run was at."""
        node = self.workflow.get(self.node or "", {})
        here = {"node_id": self.node, "node_type": node.get("class_type"), "executed": self.executed}
        return Message(message.after_s, message.kind, {**message.data, **here, "prompt_id": self.prompt_id})

    def history(self) -> JsonObject:
        """The finished prompt's entry in GET /history."""
        outputs = {data["node"]: data["output"] for kind, data in self.sent if kind == "executed"}
        # Only what has a timestamp is kept: ExecutionBlocked errors, which do not end a prompt, have none.
        kept = [[kind, data] for kind, data in self.sent if "timestamp" in data]
        success = bool(kept) and kept[-1][0] == "execution_success"
        return {
            "prompt": self.queue_item(),
            "outputs": outputs,
            "status": {"status_str": "success" if success else "error", "completed": success, "messages": kept},
            "meta": {
                node: {"node_id": node, "display_node": node, "parent_node": None, "real_node_id": node}
                for node in outputs
            },
        }

    def files(self) -> list[str]:
        """Names of the images that this run made."""
        outputs = (data["output"] for kind, data in self.sent if kind == "executed")
        return [image["filename"] for output in outputs for image in output.get("images", ())]

    def _adapted(self, value: Any) -> Any:
        """A copy in which the recording's prompt id and file names are this run's."""
        if isinstance(value, dict):
            adapted = {self._adapted(key): self._adapted(each) for key, each in value.items()}
            return adapted | self._file() if "filename" in adapted else adapted
        if isinstance(value, list):
            return [self._adapted(each) for each in value]
        return self.prompt_id if value == self.recording.prompt_id else value

    def _file(self) -> dict[str, str]:
        prefixes = [node["inputs"].get("filename_prefix") for node in self.workflow.values() if _is_output(node)]
        subfolder, _, stem = str(prefixes[0] if prefixes else "ComfyUI").rpartition("/")
        return {"filename": f"{stem}_{self.file_number:05}_.png", "subfolder": subfolder}


def _is_output(node: object) -> bool:
    return isinstance(node, dict) and node.get("class_type") == OUTPUT_CLASS and isinstance(node.get("inputs"), dict)


def _upstream(workflow: JsonObject) -> JsonObject:
    return {key: node for key, node in workflow.items() if not _is_output(node)}


def _fingerprint(workflow: JsonObject) -> str:
    return json.dumps(workflow, sort_keys=True)
