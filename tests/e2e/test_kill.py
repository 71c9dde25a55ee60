"""SIGKILL of the gateway under load: what was acknowledged arrives. The full run has OTEL_PIPELINE_KILLS=20."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.benchmarks.kill import run_kills

KILLS = int(os.environ.get("OTEL_PIPELINE_KILLS", "3"))


def test_no_acknowledged_span_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_kills(KILLS, directory=tmp_path)
    with capsys.disabled():
        print(f"\n{report}")
    assert report.lost == 0
    assert report.foreign == 0
    assert report.acked > 0
    assert report.delivered >= report.acked
