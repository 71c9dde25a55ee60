"""Loading by environment alone, for images that start their Python processes themselves:

    export PYTHONPATH="$(python -m otel_pipeline.worker.autoload)${PYTHONPATH:+:$PYTHONPATH}"

Every Python process that inherits this does what `opentelemetry-instrument` does, children included.
"""
