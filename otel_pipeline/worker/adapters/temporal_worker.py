"""The worker's interceptors: activities are jobs; a workflow hands on the context that it was started with.

Workflow code is replayed and runs in a sandbox: all that happens there is that one header is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import temporalio.activity
import temporalio.converter
import temporalio.exceptions
import temporalio.worker
import temporalio.workflow
from opentelemetry import baggage
from opentelemetry.context import Context
from temporalio.api.common.v1 import Payload

from otel_pipeline.worker import identity, names, outcomes
from otel_pipeline.worker.adapters.callables import message_of, positional_names
from otel_pipeline.worker.adapters.official import current
from otel_pipeline.worker.adapters.temporal_client import HEADER, SYSTEM
from otel_pipeline.worker.evidence import Evidence, Outcome, Source, Verdict
from otel_pipeline.worker.flow import error_name, exception_evidence
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import FINISHED, Job, Origin, job_end, job_start
from otel_pipeline.worker.messages import extract

ELSEWHERE: Final = Verdict(Outcome.UNKNOWN, Source.FRAMEWORK)
"""The activity is to be completed by somebody else, later."""


class JobInterceptor(temporalio.worker.Interceptor):
    """Added to the program's own."""

    def intercept_activity(
        self,
        next: temporalio.worker.ActivityInboundInterceptor,  # noqa: A002  the SDK's name
    ) -> temporalio.worker.ActivityInboundInterceptor:
        return _Activity(next)

    def workflow_interceptor_class(
        self,
        input: temporalio.worker.WorkflowInterceptorClassInput,  # noqa: A002, ARG002
    ) -> type[temporalio.worker.WorkflowInboundInterceptor] | None:
        return _Workflow


# -- activities --------------------------------------------------------------------------------------------------------


class _Activity(temporalio.worker.ActivityInboundInterceptor):
    async def execute_activity(self, input: temporalio.worker.ExecuteActivityInput) -> Any:  # noqa: A002
        job = _begin(input)
        try:
            result = await super().execute_activity(input)
        except BaseException as error:
            if job is not None:
                _failed(job, error)
            raise
        if job is not None:
            _returned(job, result)
        return result


@hook("temporal.begin")
def _begin(call: temporalio.worker.ExecuteActivityInput) -> Job:
    info = temporalio.activity.info()
    message = message_of(positional_names(call.fn), tuple(call.args), {})
    known = identity.fields(message)
    workflow_id = info.workflow_id or ""
    adopted = current("temporalio.contrib.opentelemetry")
    parent = adopted.parent if adopted else _parent(call.headers)
    carried = baggage.get_baggage(names.JOB_ID, parent) if parent is not None else None  # of the workflow's parent
    waited_s = (info.started_time - info.current_attempt_scheduled_time).total_seconds()
    job = job_start(
        Origin(SYSTEM, info.task_queue, f"{workflow_id}/{info.activity_id}"),
        message,
        parent=parent,
        job_id=identity.job_id(message, known) or (str(carried) if carried else workflow_id) or None,
        attempt=info.attempt,
        attributes={names.MESSAGING_CONVERSATION_ID: workflow_id, names.JOB_QUEUE_WAIT_S: max(0.0, waited_s)},
        adopt=adopted.span if adopted else None,
        name=f"process {info.activity_type}",
    )
    for name, value in ((names.JOB_TYPE, info.activity_type), (names.WORKFLOW, info.workflow_type)):
        if name not in job.fields:
            job.set(name, value)
    return job


def _parent(headers: Mapping[str, Payload]) -> Context | None:
    payload = headers.get(HEADER)
    if payload is None:
        return None
    [carrier] = temporalio.converter.PayloadConverter.default.from_payloads([payload])
    return extract(carrier) if isinstance(carrier, dict) else None


@hook("temporal.returned")
def _returned(job: Job, result: object) -> None:
    job_end(job, outcomes.returned(result, job))


@hook("temporal.failed")
def _failed(job: Job, error: BaseException) -> None:
    if type(error).__name__ == "_CompleteAsyncError":
        job_end(job, default=ELSEWHERE)
    elif isinstance(error, temporalio.exceptions.CancelledError):
        job_end(job, Evidence(Source.EXCEPTION, Outcome.CANCELLED, error_name(error)), default=FINISHED)
    else:
        job_end(job, exception_evidence(error))


# -- workflows ---------------------------------------------------------------------------------------------------------


class _Workflow(temporalio.worker.WorkflowInboundInterceptor):
    def init(self, outbound: temporalio.worker.WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))


class _Outbound(temporalio.worker.WorkflowOutboundInterceptor):
    def start_activity(
        self,
        input: temporalio.worker.StartActivityInput,  # noqa: A002
    ) -> temporalio.workflow.ActivityHandle[Any]:
        _hand_on(input)
        return super().start_activity(input)

    def start_local_activity(
        self,
        input: temporalio.worker.StartLocalActivityInput,  # noqa: A002
    ) -> temporalio.workflow.ActivityHandle[Any]:
        _hand_on(input)
        return super().start_local_activity(input)

    async def start_child_workflow(
        self,
        input: temporalio.worker.StartChildWorkflowInput,  # noqa: A002
    ) -> temporalio.workflow.ChildWorkflowHandle[Any, Any]:
        _hand_on(input)
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: temporalio.worker.ContinueAsNewInput) -> NoReturn:  # noqa: A002
        _hand_on(input)
        super().continue_as_new(input)


@hook("temporal.hand_on")
def _hand_on(request: Any) -> None:
    """Copies the header that the workflow was started with, unless somebody else's interceptor put one."""
    carried = temporalio.workflow.info().headers.get(HEADER)
    if carried is not None and HEADER not in request.headers:
        request.headers = {**request.headers, HEADER: carried}
