"""What a client that asks learns of its prompts (history, queue, jobs, downloads), and what it has the server do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.context import Context

from otel_pipeline.worker.comfyui.answers import BODY_BYTES_MAX, SUCCESS, End, entry_in, history_end, job_end
from otel_pipeline.worker.comfyui.prompts import CANCELLED, GONE, Prompt, prompts
from otel_pipeline.worker.comfyui.routes import Endpoint, Route

AT_ONCE_MAX: Final = 256
"""Open prompts that are looked for in one answer; the newest, if there are more."""

_READ: Final = frozenset({Endpoint.HISTORY, Endpoint.JOBS, Endpoint.QUEUE})


def worth_reading(route: Route, status: int) -> bool:
    """Whether the body of the answer can tell something of an open prompt."""
    if route.endpoint not in _READ or not (status == 200 or (status == 404 and route.endpoint is Endpoint.JOBS)):
        return False
    return bool(_asked_for(route))


def read(route: Route, status: int, body: bytes) -> None:
    """The answer to a GET."""
    now_ns = time.time_ns()
    if route.endpoint is Endpoint.JOBS:
        _jobs(route, status, body, now_ns)
        return
    # The newest entries of a history come last.
    body = body[-BODY_BYTES_MAX:]
    for prompt in _asked_for(route):
        name = prompt.id or ""
        if route.endpoint is Endpoint.QUEUE:
            if f'"{name}"'.encode() not in body:
                prompt.expect(GONE, now_ns)
            continue
        entry = entry_in(body, name)
        end = history_end(entry) if entry is not None else None
        if end is not None:
            prompts.end(prompt, end, now_ns)


def command(route: Route, document: Mapping[str, Any] | None, status: int) -> None:
    """A POST that changes the queue. The server answers the same if it changed nothing: so it is expected only."""
    if status >= 300:
        return
    given, now_ns = document or {}, time.time_ns()
    for prompt in _cancelled_by(route, given):
        prompt.expect(CANCELLED, now_ns)


def downloaded(route: Route, started_ns: int) -> None:
    """An output was fetched: its prompt is over."""
    prompt = _maker(route)
    if prompt is not None and not prompt.ended_ns and prompt.id is not None:
        prompt.expect(End(SUCCESS), started_ns)


def parent_of(route: Route) -> Context | None:
    """The context of the prompt whose output is fetched."""
    prompt = _maker(route)
    return prompt.context if prompt is not None else None


def _maker(route: Route) -> Prompt | None:
    if route.parameter("type") == "input":
        return None
    file = (route.parameter("filename"), route.parameter("subfolder"))
    return prompts.with_file(route, file) or prompts.latest(route)


def _asked_for(route: Route) -> list[Prompt]:
    """Open prompts that the answer may speak of."""
    if route.argument and route.endpoint is not Endpoint.QUEUE:
        prompt = prompts.found(route.argument)
        return [prompt] if prompt is not None else []
    return prompts.open_at(route)[-AT_ONCE_MAX:]


def _jobs(route: Route, status: int, body: bytes, now_ns: int) -> None:
    if status == 404:
        for prompt in _asked_for(route) if route.argument else ():
            prompt.expect(GONE, now_ns)
        return
    if len(body) > BODY_BYTES_MAX:
        return
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return
    listed = document.get("jobs", [document]) if isinstance(document, dict) else []
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, dict):
            continue
        found, end = prompts.found(str(entry.get("id"))), job_end(entry)
        if found is not None and end is not None:
            prompts.end(found, end, now_ns)


def _cancelled_by(route: Route, given: Mapping[str, Any]) -> Iterable[Prompt]:
    here = prompts.open_at(route)
    if route.endpoint is Endpoint.QUEUE:
        # What runs already is not in the queue any more.
        waiting = [each for each in here if not each.begun_ns]
        return waiting if given.get("clear") else _named(waiting, given.get("delete"))
    if route.endpoint is Endpoint.JOBS:
        name, _, verb = route.argument.rpartition("/")
        return _named(here, [name] if name else given.get("job_ids")) if verb == "cancel" else ()
    if route.endpoint is Endpoint.INTERRUPT:
        if given.get("prompt_id"):
            return _named(here, [given["prompt_id"]])
        return [each for each in here if each.begun_ns] or here[:1]
    return ()


def _named(among: Iterable[Prompt], listed: object) -> list[Prompt]:
    wanted = set(map(str, listed)) if isinstance(listed, list) else set()
    return [each for each in among if each.id in wanted]
