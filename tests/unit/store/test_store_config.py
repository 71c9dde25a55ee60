"""The section `store` of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_pipeline.config.dump import dumped
from otel_pipeline.config.loader import default_config
from otel_pipeline.errors import ConfigError
from otel_pipeline.store.config import StoreConfig

URL = "postgresql://otel:s3cret@db.example/otel"


def test_the_store_is_a_file_in_the_data_directory_unless_told() -> None:
    assert StoreConfig().place(Path("/data")) == Path("/data/store.db")
    assert default_config().store.error_groups.retention == 90 * 24 * 3600
    assert default_config([f"yaml:store: {{url: '{URL}'}}"]).store.place(Path("/data")) == URL


def test_the_password_is_not_shown() -> None:
    config = default_config([f"yaml:store: {{url: '{URL}'}}"])
    assert dumped(config, reveal=False)["store"]["url"] == "postgresql://[REDACTED]@db.example/otel"
    assert dumped(config, reveal=True)["store"]["url"] == URL


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("{url: 'mysql://s3cret@h/d'}", "store.url: is no URL of a store; allowed: sqlite, postgresql"),
        ("{url: s3cret}", "store.url: is no URL of a store"),
        ("{url: 'postgresql://u:s3c/ret@h/d'}", "write %2F, %40 or %20"),
        ("{url: 'postgresql://u:s3c@ret@h/d'}", "write %2F, %40 or %20"),
        ("{url: 'postgresql://u@h/d?password=s3cret'}", "has a password behind the host"),
        ("{error_groups: {retention: 1m}}", "store.error_groups.retention: must be greater than or equal to 3600"),
        ("{ledger: {period: 7s}}", "store.ledger.period: must be whole seconds that an hour is a multiple of"),
        ("{ledger: {period: 1500ms}}", "store.ledger.period: must be whole seconds that an hour is a multiple of"),
        ("{ledger: {period: 2h}}", "store.ledger.period: must be less than or equal to 3600"),
        ("{path: /x}", "store.path: unknown key; allowed: cost_reports, error_groups, ledger, url"),
    ],
)
def test_a_mistake_is_told_without_the_password(store: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        default_config([f"yaml:store: {store}"])
    assert told in str(caught.value)
    assert "s3c" not in str(caught.value)
