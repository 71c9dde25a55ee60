"""Workflows and activities. Temporal's sandbox imports this module anew for each workflow."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ChildWorkflowError

LIMIT = timedelta(seconds=20)
ONCE = RetryPolicy(maximum_attempts=1)
QUICK = RetryPolicy(initial_interval=timedelta(milliseconds=1), maximum_attempts=3)


@activity.defn
async def say(job: dict[str, Any]) -> list[Any]:
    if activity.info().attempt == 1:
        raise RuntimeError("voice service is busy")
    return [job["user_id"], activity.info().attempt]


@activity.defn
def render(job: dict[str, Any]) -> dict[str, Any]:
    return {"error": "CUDA out of memory", "of": job["user_id"]}


@activity.defn
async def upload(job: dict[str, Any]) -> str:
    raise LookupError(f"no frames of {job['user_id']}")


@activity.defn
async def approve(_: dict[str, Any]) -> str:
    """Somebody else completes it, later."""
    activity.raise_complete_async()


@workflow.defn
class Child:
    @workflow.run
    async def run(self, job: dict[str, Any]) -> str:
        return str(await workflow.execute_activity(upload, job, start_to_close_timeout=LIMIT, retry_policy=ONCE))


@workflow.defn
class Video:
    @workflow.run  # noqa: RET503  its last call never returns
    async def run(self, job: dict[str, Any]) -> list[Any]:
        if "seen" in job:
            return [*job["seen"], "again"]
        said = await workflow.execute_activity(say, job, start_to_close_timeout=LIMIT, retry_policy=QUICK)
        made = await workflow.execute_local_activity(render, job, start_to_close_timeout=LIMIT, retry_policy=ONCE)
        approved = await workflow.execute_activity(approve, job, start_to_close_timeout=LIMIT, activity_id="approve")
        try:
            await workflow.execute_child_workflow(Child.run, job, id=workflow.info().workflow_id + "-child")
            found = ["nothing failed"]
        except ChildWorkflowError as error:
            found = [type(error.cause).__name__, repr(getattr(error.cause, "cause", None))]
        workflow.continue_as_new({"seen": [said, made, approved, found]})
