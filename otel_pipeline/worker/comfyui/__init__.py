"""ComfyUI, seen from the worker that asks it and from inside the server."""
