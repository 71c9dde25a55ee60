"""The process around the worker: its providers, resource, children, signals and end."""
