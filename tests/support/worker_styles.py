"""The nine workers of tests/e2e/workers: how each is started and fed, its jobs, and what has to be seen of them.

A worker's own words are in `body`: nine styles, nine spellings of the same few things.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "e2e" / "workers"
WORKFLOWS: Final = {
    "success": "portrait",
    "cached": "portrait",
    "execution_error": "portrait_experimental_node",
    "out_of_memory": "portrait_8k",
    "validation_error": "portrait_missing_checkpoint",
    "cancelled": "image_to_video",
    "speech_429": "portrait",
    "speech_500": "portrait",
    "no_workflow": "does_not_exist",
    "bad_input": "",
}
"""The workflow that makes a job of this kind what it is."""
OOM: Final = "torch.OutOfMemoryError"
REFUSED: Final = "prompt_outputs_failed_validation"
PROMPT_ERRORS: Final = {"execution_error": "ValueError", "out_of_memory": OOM, "validation_error": REFUSED}
"""`error.type` of the prompt of such a job, whatever the worker makes of it."""
TEXTS: Final = {"speech_429": " [[429]]", "speech_500": " [[500]]"}
"""What the text for the speech API ends with."""
TEXT: Final = "A lighthouse keeper finds a letter in a bottle and answers it."
SECRET: Final = "a-user-nobody-may-see-"  # noqa: S105  no password
"""What the raw ids of users begin with: it may be in no telemetry."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What has to be on the job's span."""

    outcome: str
    source: str
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One job."""

    kind: str
    id: str
    user: str
    tier: str
    workflow: str
    body: dict[str, Any]
    seen: Seen
    attempts: int = 1

    @property
    def correlation_id(self) -> str:
        return f"corr-{self.id}"


@dataclass(frozen=True, slots=True)
class Style:
    """One worker and its producer."""

    name: str
    system: str
    queue: str
    """`messaging.destination.name` of the job."""
    command: tuple[str, ...]
    """Of the worker, behind `opentelemetry-instrument`."""
    post: str | None
    """The API's path for a new job; without one a script enqueues them."""
    samples: tuple[Sample, ...]
    prompts_by: str = "httpx"
    """The library of the calls to ComfyUI. Only httpx has an official instrumentation here."""
    nodes: bool = True
    """It reads ComfyUI's WebSocket, so that nodes are seen."""
    peer: bool = False
    """It needs libraries that cannot be installed beside the others."""

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def service(self) -> str:
        return f"{self.name}-worker"

    @property
    def api(self) -> str:
        return f"{self.name}-api"


def _samples(
    style: str, number: int, seen: dict[str, Seen], body: Callable[[Any], dict[str, Any]]
) -> tuple[Sample, ...]:
    """A job for each kind; `cached` repeats the seed of the success before it."""
    made: list[Sample] = []
    seed = number * 1000
    for index, (kind, expected) in enumerate(seen.items()):
        seed += kind != "cached"
        words = Words(
            id=f"{style}-{index}-{kind}",
            user=f"{SECRET}{number}-{index % 2}",
            tier=("pro", "free")[index % 2],
            workflow=WORKFLOWS[kind],
            seed=seed,
            text=TEXT + TEXTS.get(kind, ""),
            cancel=kind == "cancelled",
        )
        made.append(
            Sample(
                kind=kind,
                id=words.id,
                user=words.user,
                tier=words.tier,
                workflow=words.workflow,
                body=body(words),
                seen=expected,
                attempts=2 if style == "arq_tasks" and kind == "speech_429" else 1,
            )
        )
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Words:
    """What every job says, in one spelling or another."""

    id: str
    user: str
    tier: str
    workflow: str
    seed: int
    text: str
    cancel: bool


def _graph(job: Words) -> Any:
    graph = json.loads((FOLDER / "workflows" / f"{job.workflow}.json").read_text("utf-8"))
    for node in graph.values():
        if "color" in node["inputs"]:
            node["inputs"]["color"] = job.seed
    return graph


def _script(name: str, file: str = "worker.py") -> tuple[str, ...]:
    return (sys.executable, str(FOLDER / name / file))


def _tool(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(Path(sys.executable).with_name(name)), *arguments)


STYLES: Final[dict[str, Style]] = {
    style.name: style
    for style in (
        Style(
            name="list_json",
            system="redis",
            queue="image:jobs",
            command=_script("list_json"),
            post="/jobs",
            prompts_by="urllib",
            samples=_samples(
                "list_json",
                1,
                {
                    "success": Seen("completed", "status"),
                    "cached": Seen("completed", "status"),
                    "execution_error": Seen("failed", "status", "ValueError"),
                    "out_of_memory": Seen("failed", "status", OOM),
                    "validation_error": Seen("failed", "status", REFUSED),
                },
                lambda job: {
                    "idempotency_key": job.id,
                    "user_id": job.user,
                    "tier": job.tier,
                    "workflow_name": job.workflow,
                    "model": "sdxl",
                    "seed": job.seed,
                    "prompt": job.text,
                },
            ),
        ),
        Style(
            name="list_id",
            system="redis",
            queue="orchestrator:queue",
            command=_script("list_id"),
            post=None,
            nodes=False,
            samples=_samples(
                "list_id",
                2,
                {
                    "success": Seen("completed", "status"),
                    "execution_error": Seen("failed", "status", "ValueError"),
                    "speech_429": Seen("failed", "status"),
                    "validation_error": Seen("failed", "status", REFUSED),
                    "cancelled": Seen("cancelled", "status"),
                },
                lambda job: {
                    "id": job.id,
                    "user_id": job.user,
                    "tier": job.tier,
                    "workflow": job.workflow,
                    "model": "sdxl",
                    "seed": job.seed,
                    "text": job.text,
                    **({"cancel_requested": 1} if job.cancel else {}),
                },
            ),
        ),
        Style(
            name="streams",
            system="redis",
            queue="render:requests",
            command=_script("streams"),
            post="/render",
            prompts_by="requests",
            nodes=False,
            samples=_samples(
                "streams",
                3,
                {
                    "success": Seen("completed", "message"),
                    "execution_error": Seen("failed", "message", "RuntimeError"),
                    "out_of_memory": Seen("failed", "message", "RuntimeError"),
                    "speech_500": Seen("failed", "message"),
                },
                lambda job: {
                    "request_id": job.id,
                    "userId": job.user,
                    "tier": job.tier,
                    "workflowName": job.workflow,
                    "model": "sdxl",
                    "seed": job.seed,
                    "script": job.text,
                },
            ),
        ),
        Style(
            name="zset",
            system="redis",
            queue="gen:pending",
            command=_script("zset"),
            post=None,
            prompts_by="aiohttp",
            samples=_samples(
                "zset",
                4,
                {
                    "success": Seen("completed", "end"),
                    "execution_error": Seen("failed", "status", "ValueError"),
                    "out_of_memory": Seen("failed", "status", OOM),
                    "validation_error": Seen("failed", "status", REFUSED),
                },
                lambda job: {
                    "task_id": job.id,
                    "userId": job.user,
                    "tier": job.tier,
                    "workflow": job.workflow,
                    "model": "sdxl",
                    "seed": job.seed,
                },
            ),
        ),
        Style(
            name="rq_tasks",
            system="rq",
            queue="clips",
            command=_tool("rq", "worker", "clips", "--name", "e2e"),
            post=None,
            prompts_by="requests",
            samples=_samples(
                "rq_tasks",
                5,
                {
                    "success": Seen("completed", "return"),
                    "execution_error": Seen("failed", "return", "ValueError"),
                    "validation_error": Seen("failed", "return", REFUSED),
                    "speech_429": Seen("failed", "return"),
                },
                lambda job: {
                    "job_id": job.id,
                    "user_id": job.user,
                    "tier": job.tier,
                    "workflow_name": job.workflow,
                    "seed": job.seed,
                    "text": job.text,
                },
            ),
        ),
        Style(
            name="arq_tasks",
            system="arq",
            queue="avatars",
            command=(sys.executable, "-m", "arq", "worker.WorkerSettings"),
            post="/avatars",
            peer=True,
            nodes=False,
            samples=_samples(
                "arq_tasks",
                6,
                {
                    "success": Seen("completed", "end"),
                    "execution_error": Seen("failed", "comfyui", "ValueError"),
                    "validation_error": Seen("failed", "comfyui", REFUSED),
                    "speech_429": Seen("completed", "end"),
                    "speech_500": Seen("failed", "log", "httpx.HTTPStatusError"),
                },
                lambda job: {
                    "job_id": job.id,
                    "user_id": job.user,
                    "tier": job.tier,
                    "workflow": job.workflow,
                    "seed": job.seed,
                    "text": job.text if "500" not in job.text else "[[500]] " + job.text,
                },
            ),
        ),
        Style(
            name="celery_tasks",
            system="celery",
            queue="celery",
            command=_tool(
                "celery", "-A", "tasks", "worker", "--concurrency", "1", "--pool", "prefork", "--loglevel", "INFO"
            ),
            post="/posters",
            prompts_by="requests",
            nodes=False,
            samples=_samples(
                "celery_tasks",
                7,
                {
                    "success": Seen("completed", "status"),
                    "execution_error": Seen("failed", "status", "ValueError"),
                    "out_of_memory": Seen("failed", "status", OOM),
                    "validation_error": Seen("failed", "status", REFUSED),
                },
                lambda job: {
                    "task_id": job.id,
                    "user_id": job.user,
                    "tier": job.tier,
                    "workflow": job.workflow,
                    "seed": job.seed,
                },
            ),
        ),
        Style(
            name="runpod_handler",
            system="runpod",
            queue="handler",
            command=_script("runpod_handler", "rp_handler.py"),
            post=None,
            prompts_by="requests",
            samples=_samples(
                "runpod_handler",
                8,
                {
                    "success": Seen("completed", "end"),
                    "execution_error": Seen("failed", "framework", "ValueError"),
                    "out_of_memory": Seen("failed", "framework", OOM),
                    "validation_error": Seen("failed", "framework", REFUSED),
                    "bad_input": Seen("failed", "framework"),
                },
                lambda job: {
                    "id": job.id,
                    "input": {
                        "user_id": job.user,
                        "tier": job.tier,
                        "workflow_name": job.workflow,
                        **({"workflow": _graph(job)} if job.workflow else {}),
                    },
                },
            ),
        ),
        Style(
            name="inline",
            system="redis",
            queue="renderbot",
            command=_script("inline"),
            post=None,
            prompts_by="urllib",
            samples=_samples(
                "inline",
                9,
                {
                    "success": Seen("completed", "end"),
                    "execution_error": Seen("failed", "comfyui", "ValueError"),
                    "out_of_memory": Seen("failed", "comfyui", OOM),
                    "no_workflow": Seen("failed", "log", "FileNotFoundError"),
                },
                lambda job: {
                    "id": job.id,
                    "chat_id": job.user,
                    "tier": job.tier,
                    "type": job.workflow,
                    "seed": job.seed,
                },
            ),
        ),
    )
}
