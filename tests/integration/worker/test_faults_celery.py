"""An exception in any of our hooks changes nothing for a Celery worker: limits, revocation and lost children."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from otel_pipeline.demo.redis_server import redis_server
from tests.support.worker_faults import ELSEWHERE, answer, run

HOOKS = ("celery.", "children.")
CHILD = "from tests.support.worker_celery import main; main()"


def played(folder: Path, mode: str, **options: Any) -> Any:
    with redis_server() as url:
        given = {"mode": mode, "redis": url, "folder": str(folder), **options}
        return answer(run(CHILD, json.dumps(given)))


def test_no_celery_worker_notices_an_exception_in_a_hook(tmp_path: Path) -> None:
    wanted = played(tmp_path, "plain")
    states = {name: told[0] for name, told in wanted.items() if name != "heard"}
    assert states == {
        "good": "SUCCESS",
        "fails": "FAILURE",
        "again": "SUCCESS",
        "told": "SUCCESS",
        "soft": "SUCCESS",
        "hard": "FAILURE",
        "killed": "FAILURE",
        "terminated": "REVOKED",
        "expired": "REVOKED",
    }
    found = played(tmp_path, "faults", wanted=wanted, hooks=HOOKS)
    assert {fault: told for fault, told in found["seen"].items() if told != wanted} == {}, wanted
    untouched = [name for name, threw in found["thrown"].items() if not threw]
    assert not untouched, "nothing throws in these"
    assert set(ELSEWHERE["celery"]) <= set(found["thrown"])
