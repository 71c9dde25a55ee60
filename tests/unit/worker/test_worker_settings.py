"""Environment variables of the worker side."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from otel_pipeline.worker import names
from otel_pipeline.worker.settings import PREFIX, Settings, read


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read({}) == Settings()


def test_lists_are_comma_separated() -> None:
    assert read({"OTEL_PIPELINE_QUEUES": "jobs:*, video , "}).queues == ("jobs:*", "video")


def test_empty_text_is_as_if_unset() -> None:
    assert read({"OTEL_PIPELINE_QUEUES": " "}) == Settings()


def test_baggage_can_be_empty() -> None:
    assert Settings().baggage == names.CARRIED
    assert read({"OTEL_PIPELINE_BAGGAGE": ""}).baggage == ()


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("OTEL_PIPELINE_CONTEXT_TTL_S", "soon", "float"),
        ("OTEL_PIPELINE_CONTEXT_TTL_S", "-1", "positive"),
        ("OTEL_PIPELINE_CONTEXT_TTL_S", "nan", "positive"),
        ("OTEL_PIPELINE_JOB_RELATION", "child", "parent, link"),
        ("OTEL_PIPELINE_ROOT_CLIENT_SPANS", "maybe", "true or false"),
    ],
)
def test_a_value_that_cannot_be_read_leaves_the_default_and_is_told(
    variable: str, text: str, allowed: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "otel_pipeline.worker"):
        assert read({variable: text}) == Settings()
    assert variable in caplog.text
    assert allowed in caplog.text


def test_every_setting_has_a_variable_of_its_own() -> None:
    variables = [each.metadata["variable"] for each in dataclasses.fields(Settings)]
    assert len(set(variables)) == len(variables)
    assert all(each.startswith(PREFIX) for each in variables)
