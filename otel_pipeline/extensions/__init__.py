"""Parts of the gateway that handle no telemetry."""
