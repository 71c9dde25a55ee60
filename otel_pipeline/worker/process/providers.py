"""What is added to the SDK's providers once they exist: the job on every span and log record, what the process runs on.

The SDK's classes are never imported here: its objects are known by the methods that they have.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import baggage, metrics, trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.context import Context
from opentelemetry.util.types import AttributeValue

from otel_pipeline.worker import names
from otel_pipeline.worker.guard import hook
from otel_pipeline.worker.jobs import current_job
from otel_pipeline.worker.process import correlation
from otel_pipeline.worker.process.draining import Unsent
from otel_pipeline.worker.spans import JobAttributes

SERVICE_NAME: Final = "service.name"
UNNAMED: Final = "unknown_service"
"""How the SDK's name of a service begins that nobody named."""


@hook("providers.prepare")
def prepare() -> None:
    """Called when the providers are there and no instrumentation is."""
    _prepare_spans(trace.get_tracer_provider())
    _prepare_logs(get_logger_provider())
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider(), get_logger_provider()):
        _prepare_resource(provider)
    correlation.install()


@hook("providers.spans")
def _prepare_spans(provider: Any) -> None:
    if callable(getattr(provider, "add_span_processor", None)):
        provider.add_span_processor(JobAttributes())
        provider.add_span_processor(EndedSpans())
        Unsent.watched = True


@hook("providers.logs")
def _prepare_logs(provider: Any) -> None:
    """Before the others: those that export at once must find the fields on the record."""
    processor = JobOnLogRecords()
    several = getattr(provider, "_multi_log_record_processor", None)
    existing = getattr(several, "_log_record_processors", None)
    if isinstance(existing, tuple):
        several._log_record_processors = (processor, *existing)  # type: ignore[union-attr]  # it has the attribute
    elif callable(getattr(provider, "add_log_record_processor", None)):
        provider.add_log_record_processor(processor)


class EndedSpans:
    """A span processor that tells that there is something to flush."""

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        pass

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:  # noqa: ARG002  the SDK's signature
        Unsent.note()

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  the SDK's signature
        return True


class JobOnLogRecords:
    """Has the shape of an SDK `LogRecordProcessor`."""

    def on_emit(self, log_record: Any) -> None:
        _describe(log_record)

    def enabled(self, **_: Any) -> bool:
        # True would stand in for the others: the SDK asks whether any of them would take the record.
        return False

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002  the SDK's signature
        return True


@hook("providers.describe")
def _describe(emitted: Any) -> None:
    Unsent.note()
    record = emitted.log_record
    job = current_job(record.context)
    known: Mapping[str, Any] = job.fields if job is not None else baggage.get_all(record.context)
    for key in names.CARRIED:
        if key in known and key not in record.attributes:
            record.attributes[key] = known[key]


# -- the resource ------------------------------------------------------------------------------------------------------


@hook("providers.resource")
def _prepare_resource(provider: Any) -> None:
    """What the operator, a detector or the program set stays; only the role of a ComfyUI server is decided here."""
    existing = _attributes(provider)
    sdk = sys.modules.get("opentelemetry.sdk.resources")
    if existing is None or sdk is None or not callable(getattr(provider, "_update_resource", None)):
        return
    unnamed = str(existing.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED)
    wanted = {
        key: value
        for key, value in (_found() or {}).items()
        if key not in existing or (key == SERVICE_NAME and unnamed)
    }
    role = _role(provider)
    if role is not None:
        wanted[SERVICE_NAME] = role
    if wanted:
        provider._update_resource(sdk.Resource(wanted))


def _attributes(provider: Any) -> Mapping[str, Any] | None:
    resource = getattr(provider, "resource", None)
    if resource is None:  # a meter provider keeps it in its configuration
        resource = getattr(getattr(provider, "_sdk_config", None), "resource", None)
    return getattr(resource, "attributes", None)


@hook("providers.found")
def _found() -> dict[str, AttributeValue]:
    from otel_pipeline.worker.process import resource  # noqa: PLC0415  a failure in it costs the resource only

    return dict(resource.attributes())


@hook("providers.role")
def _role(_provider: Any) -> str | None:
    from otel_pipeline.worker.process import resource  # noqa: PLC0415

    name: str | None = resource.service_name()
    return name
