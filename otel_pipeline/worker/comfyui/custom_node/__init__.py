"""A custom node of ComfyUI without nodes: traces what the server runs. Copy or link this folder into `custom_nodes`."""

from otel_pipeline.worker.comfyui.custom_node_entry import arm

# ComfyUI loads it by its path, under another name; who imports the package means nothing by it.
NODE_CLASS_MAPPINGS = {} if __name__.startswith("otel_pipeline.") else arm()
