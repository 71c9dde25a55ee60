"""Prometheus' own parser and linter over a scrape."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.unit.exporters.test_prometheus import full

PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_finds_nothing_wrong_but_what_the_sender_chose() -> None:
    assert PROMTOOL is not None
    _, body = full().render("")
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=body, capture_output=True, check=False, timeout=30)
    complaints = (checked.stdout + checked.stderr).decode().splitlines()
    assert [line for line in complaints if not line.startswith("latency_milliseconds")] == []
