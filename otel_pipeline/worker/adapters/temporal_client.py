"""The client's interceptor: what starts a workflow is a `send` span, and its context goes with the workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import temporalio.client
import temporalio.converter
from temporalio.api.common.v1 import Payload

from otel_pipeline.worker import names
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.messages import Send, send_end, send_start

SYSTEM: Final = "temporal"
HEADER: Final = "_tracer-data"
"""That of Temporal's own OpenTelemetry interceptors, in each of its SDKs: a JSON object of headers."""


class JobInterceptor(temporalio.client.Interceptor):
    """Added to the program's own."""

    def intercept_client(self, next: temporalio.client.OutboundInterceptor) -> temporalio.client.OutboundInterceptor:  # noqa: A002
        return _Outbound(next)


class _Outbound(temporalio.client.OutboundInterceptor):
    async def start_workflow(
        self,
        input: temporalio.client.StartWorkflowInput,  # noqa: A002  the SDK's name
    ) -> temporalio.client.WorkflowHandle[Any, Any]:
        send = _starting(input)
        try:
            handle = await super().start_workflow(input)
        except BaseException as error:
            _started(send, error)
            raise
        _started(send, None)
        return handle


@hook("temporal.start")
def _starting(request: temporalio.client.StartWorkflowInput) -> Send | None:
    if HEADER in request.headers:
        return None
    message = {"args": list(request.args), "kwargs": {}, "id": request.id}
    send = send_start(SYSTEM, request.workflow, message, request.id)
    send.span.set_attribute(names.MESSAGING_CONVERSATION_ID, request.id)
    request.headers = {**request.headers, HEADER: _payload(send.headers)}
    return send


@hook("temporal.started")
def _started(send: Send | None, error: BaseException | None) -> None:
    send_end(send, error)


def _payload(headers: Mapping[str, str]) -> Payload:
    return temporalio.converter.PayloadConverter.default.to_payloads([dict(headers)])[0]
