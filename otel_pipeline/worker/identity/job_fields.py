"""The fields of a job: their names in the configuration, their attributes, where they are found by default, their form.

This is the allow-list: nothing else of a message is read. A value that is no scalar, longer than 256 characters or has
the look of a credential is no value; users and e-mail addresses become pseudonyms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.util.types import AttributeValue

from otel_pipeline.worker import names
from otel_pipeline.worker.identity import quantities
from otel_pipeline.worker.identity.quantities import CHARACTERS_MAX, IMAGES_MAX, SECONDS_MAX, amount, length
from otel_pipeline.worker.reading.paths import base, stem, url_part
from otel_pipeline.worker.reading.payload import scalar
from otel_pipeline.worker.redaction import has_query_or_credentials, is_email, is_random, is_secret, pseudonym
from otel_pipeline.worker.settings import settings

VALUE_MAX: Final = 256
"""Characters of a field's value."""
LABEL_MAX: Final = 128
"""Characters of a value that tells kinds of jobs apart: longer ones are texts, not labels."""
TOKEN_MIN: Final = 40
PRIORITY_MAX: Final = 2**53
"""Up to here a float is a whole number, and an attribute has room for it."""
USER_MAX: Final = 2048
"""Users may come as tokens, which are long."""
_FILES: Final = (".json", ".yaml", ".yml", ".png", ".txt")

Clean = Callable[[object], AttributeValue | None]


def identifier(value: object) -> str | None:
    """An id: of the job, of the request. Addresses and long tokens are hashed, so that they still join."""
    text = _text(value)
    if text is None or "://" in text or is_secret(text):
        return None
    return pseudonym(text, settings().user_key) if is_email(text) or _is_token(text) else text


def _is_token(text: str) -> bool:
    """Ids that are made at random are shorter."""
    return len(text) >= TOKEN_MIN and is_random(text)


def user(value: object) -> str | None:
    """A pseudonym, also for addresses and tokens: they are hashed, not refused."""
    plain = scalar(value)
    if plain is None or isinstance(plain, bool):
        return None
    text = str(plain)
    if len(text) > USER_MAX or text.lower() in {"none", "null", "undefined"}:
        return None
    return pseudonym(text.lower() if is_email(text) else text, settings().user_key)


def label(value: object) -> str | None:
    """A short word or name that many jobs share."""
    text = _text(value)
    if text is None or len(text) > LABEL_MAX or "://" in text or is_secret(text) or is_random(text) or is_email(text):
        return None
    return text


def workflow(value: object) -> str | None:
    """A name, or the stem of a path."""
    text = _text(value)
    if text is None or text[0] in "{[":
        return None
    is_file = text.lower().endswith(_FILES)
    if "://" in text or "\\" in text or (is_file and "/" in text) or text.startswith(("/", "./")):
        return None if has_query_or_credentials(text) else label(stem(text))
    return label(stem(text) if is_file else text)


def model(value: object) -> str | None:
    """A name; of a URL or an absolute path the last part."""
    text = _text(value)
    if text is None or has_query_or_credentials(text):
        return None
    return label(base(text) if "://" in text or text.startswith(("/", "./")) or "\\" in text else text)


def priority(value: object) -> str | int | None:
    plain = scalar(value)
    if isinstance(plain, float):
        plain = int(plain) if plain.is_integer() and abs(plain) <= PRIORITY_MAX else str(plain)
    if isinstance(plain, int) and not isinstance(plain, bool):
        return plain if abs(plain) <= PRIORITY_MAX else label(str(plain))
    return label(plain)


def attempt(value: object) -> int | None:
    number = amount(value, 10_000)
    return int(number) if number is not None and number == int(number) else None


def backend(value: object) -> str | None:
    """A name, or host:port of a URL."""
    text = _text(value)
    if text is None:
        return None
    if "://" in text:
        found = url_part(text, "hostport")
        return str(found) if found else None
    return label(text)


def dimension(value: object) -> AttributeValue | None:
    """A value of a dimension of the operator's own."""
    plain = scalar(value)
    return plain if isinstance(plain, (bool, int, float)) else label(plain)


def images(value: object) -> int | None:
    number = len(value) if isinstance(value, list) else amount(value, IMAGES_MAX)
    return int(number) if number else None


def seconds(value: object) -> float | None:
    return amount(value, SECONDS_MAX)


def characters(value: object) -> int | None:
    """A count; a text is measured."""
    plain = value if isinstance(value, (int, float)) else amount(value, CHARACTERS_MAX)
    return int(plain) if plain is not None else length(value)


def megapixels(value: object) -> float | None:
    return amount(value, 1e6)


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    attribute: str
    clean: Clean
    defaults: tuple[tuple[str, ...], ...] = ()
    """Keys that are looked for in the message and its envelopes, the best first."""
    firsts: frozenset[str] = field(init=False)
    """The keys that those begin with."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "firsts", frozenset(way[0] for way in self.defaults))


def _keys(*each: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(name.split(".")) for name in each)


JOB_ID_KEYS: Final = (
    *("job_id", "jobId", "jobID", "job_uuid", "task_id", "taskId", "id", "request_id", "requestId", "content_id"),
    *("contentId", "generation_id", "generationId", "run_id", "runId", "uuid"),
)

FIELDS: Final = (
    Field("job_id", names.JOB_ID, identifier, _keys(*JOB_ID_KEYS)),
    Field(
        "user",
        names.USER_ID,
        user,
        _keys(
            *(
                "user_id",
                "userId",
                "userID",
                "user.id",
                "user.user_id",
                "user",
                "uid",
                "owner_id",
                "ownerId",
                "owner_token",
            ),
            *("owner", "account_id", "accountId", "customer_id", "customerId", "email", "user_email", "userEmail"),
            *(
                "user.email",
                "username",
                "chat_id",
                "chatId",
                "tenant_id",
                "tenantId",
                "org_id",
                "project_id",
                "projectId",
            ),
        ),
    ),
    Field(
        "workflow",
        names.WORKFLOW,
        workflow,
        _keys(
            *("workflow_id", "workflowId", "workflow_name", "workflowName", "workflow", "workflow.name", "workflow.id"),
            *(
                "comfyui_workflow_name",
                "workflow_path",
                "workflow_file",
                "task_type",
                "taskType",
                "tasktype",
                "job_type",
            ),
            *("jobType", "type", "mode", "modifier", "persona_key"),
        ),
    ),
    Field(
        "model",
        names.MODEL,
        model,
        _keys(
            *("model", "model_name", "modelName", "model_id", "modelId", "model.name", "model.id", "model_slug"),
            *("checkpoint_model", "sd_model_checkpoint", "checkpoint", "ckpt_name", "unet_name"),
        ),
    ),
    Field(
        "tier",
        names.JOB_TIER,
        label,
        _keys(
            *("tier", "user_tier", "userTier", "plan", "user.tier", "user.plan", "subscription_tier", "service_tier"),
            *("subscription", "account_type", "quality_tier"),
        ),
    ),
    Field("priority", names.JOB_PRIORITY, priority, _keys("priority", "job_priority", "prio")),
    Field(
        "type",
        names.JOB_TYPE,
        label,
        _keys("job_type", "jobType", "task_type", "taskType", "tasktype", "type", "task", "mode", "kind", "action"),
    ),
    Field(
        "correlation_id",
        names.CORRELATION_ID,
        identifier,
        _keys(
            *("correlation_id", "correlationId", "x-correlation-id", "X-Correlation-ID", "X-Correlation-Id"),
            *("x_correlation_id", "request_id", "requestId", "x-request-id", "X-Request-ID", "X-Request-Id"),
        ),
    ),
    Field("attempt", names.JOB_ATTEMPT, attempt, _keys("attempt", "attempt_number", "attemptNumber")),
    Field("backend", names.BACKEND, backend, _keys("backend", "backend_name", "comfyui_url", "comfy_url")),
    Field("images", names.IMAGES, images),
    Field("video_seconds", names.VIDEO_SECONDS, seconds),
    Field("audio_seconds", names.AUDIO_SECONDS, seconds),
    Field("characters", names.CHARACTERS, characters),
    Field("megapixels", names.MEGAPIXELS, megapixels),
)
"""Quantities have rules of their own (quantities.py)."""
BY_NAME: Final = {each.name: each for each in FIELDS} | {each.attribute: each for each in FIELDS}
ANYWHERE_BUT: Final = frozenset({"params", "context", "request", "headers", "event"})
"""Envelopes whose `id` is not the job's."""
GRAPHS: Final = ("workflow", "prompt", "workflow_json", "workflow_api", "graph", "comfyui_workflow", "workflow_data")
"""Keys that hold a ComfyUI graph, if what they hold has the look of one."""
WANTED: Final = frozenset({*(steps[0] for each in FIELDS for steps in each.defaults), *GRAPHS, *quantities.NAMES})
"""All names that are looked for where nothing is configured."""


def _text(value: object) -> str | None:
    plain = scalar(value)
    if plain is None or isinstance(plain, (bool, float)):
        return None
    text = str(plain)
    return text if 0 < len(text) <= VALUE_MAX and text.isprintable() else None
