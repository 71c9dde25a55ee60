"""An exception in any of our hooks changes nothing for Temporal's programs: each throws in turn, and all at once."""

from __future__ import annotations

from pathlib import Path

from tests.support.worker_faults import ELSEWHERE, check, compared, flows_of
from tests.support.worker_temporal import temporal_server


def test_no_temporal_program_notices_an_exception_in_a_hook(tmp_path: Path) -> None:
    with temporal_server(tmp_path) as address:
        found = compared(flows_of("temporal_flows"), temporal=address, hooks=ELSEWHERE["temporal"])
    check(found, "temporal")
