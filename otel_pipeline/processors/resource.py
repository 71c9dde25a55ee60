"""Processor `resource`: sets and removes attributes of resources, for all three signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from otel_pipeline.contracts import Context, Settings
from otel_pipeline.processors.actions import AttributeAction

if TYPE_CHECKING:
    from otel_pipeline.wire.batch import Batch, How
    from otel_pipeline.wire.signal import Signal


class ResourceProcessor:
    """Changes each distinct resource of a batch once, whatever the number of its rows."""

    class Config(Settings):
        """Settings of `resource`."""

        attributes: Annotated[tuple[AttributeAction, ...], Field(min_length=1)]
        """What to change, in this order."""

    def __init__(self, config: Config, context: Context) -> None:  # noqa: ARG002 - every component gets a context
        self._actions = config.attributes

    def attributes(self, signal: Signal) -> frozenset[str]:  # noqa: ARG002 - the same for all
        """None: it reads resources only."""
        return frozenset()

    def process(self, batch: Batch) -> None:
        """Record the changes of every resource."""
        for action in self._actions:
            if action.action == "delete":
                batch.delete_resource(action.key)
            elif action.value is not None:
                batch.set_resource(action.key, action.value, action.action)
            elif action.from_attribute is not None:
                _copy(batch, action.key, action.from_attribute, action.action)


def _copy(batch: Batch, key: str, source: str, how: How) -> None:
    for index, attributes in enumerate(batch.resources()[1]):
        value = attributes.get(source)
        wanted = how == "upsert" or (key in attributes) == (how == "update")
        if wanted and isinstance(value, str | bool | int | float):
            batch.edits.set_resource(index, key, value)
