"""What has the look of a credential."""

from __future__ import annotations

import pytest

from otel_pipeline.worker.redaction import is_secret


@pytest.mark.parametrize(
    "text",
    [
        "hf_" + "a" * 12,
        "SG." + "x" * 12,
        "sk-" + "a" * 16,
        "AKIA" + "X" * 12,
        "eyJhbGciOiJ.abcd",
        "dsn=abcd",
        "my_api_key : 12345",
        "Bearer abcdefgh",
        "://user:secret@host",
        "data:image/png;base64,",
        "-----BEGIN RSA PRIVATE KEY-----",
        "a1b2c3d4e5f6 token=abcd",
    ],
)
def test_a_credential_is_seen_whatever_marks_it(text: str) -> None:
    assert is_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "3e3920d2-6c40-47db-8e43-1102cdb6d7b6",
        "A" * 64,
        "job-12",
        "user-1:abc",
        "portrait",
        "",
        "a b=c",
        "eyJhbGciOi.abcd",
    ],
)
def test_ids_and_names_are_none(text: str) -> None:
    assert not is_secret(text)
