"""What the folder `custom_node` calls in a ComfyUI that was started without `opentelemetry-instrument`.

Where nothing is set up, everything is, as `opentelemetry-instrument` would do it from the same OTEL_ variables. Where a
provider exists already, only the hooks are armed.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from opentelemetry import trace

from otel_pipeline.worker import entry
from otel_pipeline.worker.guard import hook


def arm() -> dict[str, Any]:
    """Arms the hooks once. Returns the nodes that this adds to ComfyUI: none."""
    _arm()
    return {}


@hook("comfyui_custom_node.arm")
def _arm() -> None:
    if _entered():
        return
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider) and importlib.util.find_spec("opentelemetry.sdk") is not None:
        from opentelemetry.instrumentation.auto_instrumentation import initialize  # noqa: PLC0415  rarely needed

        initialize()
    if not _entered():
        entry.pre_instrument()
        entry.post_instrument()


def _entered() -> bool:
    """The entry points were called: by `opentelemetry-instrument`, autoload, or here a moment ago."""
    return "otel_pipeline.worker.process.providers" in sys.modules
