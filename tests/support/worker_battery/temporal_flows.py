# ruff: noqa: PLC0415
# A flow imports its library itself: with our hooks in place, and only if it is run. The server is on loopback.
"""Temporal."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from tests.support.worker_battery.core import TASK, World, asynchronous

OWN_HEADER = "_tracer-data"
"""The header that we add, as is documented."""


@asynchronous
async def temporal_workflows(world: World) -> Any:
    from temporalio.client import Client, WorkflowFailureError
    from temporalio.worker import Worker

    from tests.support.worker_battery import temporal_stages as stages

    client = await Client.connect(world.temporal)
    queue, seen = str(uuid.uuid4()), list[Any]()
    activities = [stages.say, stages.render, stages.upload, stages.approve]
    with ThreadPoolExecutor(2) as pool:
        async with Worker(
            client,
            task_queue=queue,
            workflows=[stages.Video, stages.Child],
            activities=activities,
            activity_executor=pool,
        ):
            started = await client.start_workflow(stages.Video.run, dict(TASK), id=queue, task_queue=queue)
            await _approve(client, queue)
            seen.append(await started.result())
            seen += [await _history(client, queue, started.result_run_id), await _history(client, f"{queue}-child")]
            try:
                await client.execute_workflow(stages.Child.run, dict(TASK), id=f"{queue}-2", task_queue=queue)
            except WorkflowFailureError as error:
                seen.append([type(each).__name__ for each in (error, error.cause, error.cause.__cause__)])
    try:
        await client.start_workflow("Nobody's", id=queue, task_queue="", rpc_timeout=None)
    except Exception as error:  # noqa: BLE001  whichever it is
        seen.append([type(error).__name__, str(error)])
    return seen


async def _approve(client: Any, workflow_id: str) -> None:
    from temporalio.service import RPCError

    handle = client.get_async_activity_handle(workflow_id=workflow_id, run_id=None, activity_id="approve")
    for _ in range(500):
        with suppress(RPCError):
            await handle.complete("approved")
            return
        await asyncio.sleep(0.02)


async def _history(client: Any, workflow_id: str, run_id: str | None = None) -> list[Any]:
    """What the server keeps of it, but for how the work was split into tasks of the workflow."""
    events = (await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()).events
    told = []
    for event in events:
        kind = event.WhichOneof("attributes").removesuffix("_event_attributes")
        details = getattr(event, f"{kind}_event_attributes")
        if kind.startswith("workflow_task_"):
            continue
        fields = getattr(getattr(details, "header", None), "fields", {})
        given = getattr(getattr(details, "input", None), "payloads", ())
        own = sorted(name for name in fields if name != OWN_HEADER)
        told.append([kind, own, [payload.data for payload in given]])
    return told
