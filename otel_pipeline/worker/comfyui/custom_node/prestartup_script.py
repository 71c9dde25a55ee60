"""ComfyUI runs this before it imports torch and its own modules, so that their first import is seen."""

from otel_pipeline.worker.comfyui.custom_node_entry import arm

arm()
