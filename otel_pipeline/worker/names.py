"""Names of attributes, events and metrics that the worker side writes.

`otel_pipeline.` is this project's namespace, `comfyui.` that of the technology; the others are semantic conventions
(v1.44: messaging, error, server; gen_ai from the repository of its own).
"""

from __future__ import annotations

from typing import Final

JOB_ID: Final = "otel_pipeline.job.id"
JOB_TYPE: Final = "otel_pipeline.job.type"
JOB_TIER: Final = "otel_pipeline.job.tier"
JOB_PRIORITY: Final = "otel_pipeline.job.priority"
JOB_ATTEMPT: Final = "otel_pipeline.job.attempt"
JOB_WILL_RETRY: Final = "otel_pipeline.job.will_retry"
"""True if the framework runs the job again after this attempt."""
JOB_OUTCOME: Final = "otel_pipeline.job.outcome"
JOB_OUTCOME_SOURCE: Final = "otel_pipeline.job.outcome_source"
JOB_QUEUE_WAIT_S: Final = "otel_pipeline.job.queue_wait"
"""Seconds between enqueuing and start."""
JOB_STATE: Final = "otel_pipeline.job.state"
"""On the small records of a job that is not over: `started` or `running`."""
JOB_SPAN_ID: Final = "otel_pipeline.job.span_id"
JOB_PARENT_SPAN_ID: Final = "otel_pipeline.job.parent_span_id"
JOB_START_TIME: Final = "otel_pipeline.job.start_time_unix_nano"

USER_ID: Final = "enduser.pseudo.id"
WORKFLOW: Final = "otel_pipeline.workflow.name"
MODEL: Final = "gen_ai.request.model"
BACKEND: Final = "otel_pipeline.backend.name"
STAGE: Final = "otel_pipeline.stage.name"
STAGE_INDEX: Final = "otel_pipeline.stage.index"
CORRELATION_ID: Final = "otel_pipeline.correlation_id"

IMAGES: Final = "otel_pipeline.quantity.images"
VIDEO_SECONDS: Final = "otel_pipeline.quantity.video_seconds"
AUDIO_SECONDS: Final = "otel_pipeline.quantity.audio_seconds"
CHARACTERS: Final = "otel_pipeline.quantity.characters"
MEGAPIXELS: Final = "otel_pipeline.quantity.megapixels"
TOKENS_IN: Final = "gen_ai.usage.input_tokens"
TOKENS_OUT: Final = "gen_ai.usage.output_tokens"

FAILOVER_FROM: Final = "otel_pipeline.failover.from"
FAILOVER_TO: Final = "otel_pipeline.failover.to"
FAILOVER_REASON: Final = "otel_pipeline.failover.reason"

ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_OPERATION: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_CONVERSATION_ID: Final = "messaging.message.conversation_id"
MESSAGING_BODY_SIZE: Final = "messaging.message.body.size"
MESSAGING_CONSUMER_GROUP: Final = "messaging.consumer.group.name"

CARRIED: Final = (JOB_ID, CORRELATION_ID, JOB_TYPE, JOB_TIER, USER_ID, WORKFLOW)
"""On every span of the job, and in baggage, so that other processes of the job put them on theirs."""
