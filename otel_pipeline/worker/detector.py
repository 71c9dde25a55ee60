"""The OpenTelemetry resource detector `otel_pipeline`, named in OTEL_EXPERIMENTAL_RESOURCE_DETECTORS or found by `*`.

Small on purpose: the SDK loads detectors while it is being imported, so `opentelemetry.sdk.trace` may not be here.
"""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource, ResourceDetector

from otel_pipeline.worker.process import resource


class WorkerResourceDetector(ResourceDetector):
    """Host, container, pod, provider and GPUs; the service's name only where it would be another process's."""

    def detect(self) -> Resource:
        found: dict[str, str | int | list[str]] = resource.attributes()
        name = resource.service_name()
        return Resource({**found, "service.name": name} if name else found)
