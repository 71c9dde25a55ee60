"""A process that is killed while it keeps the ledger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from otel_pipeline.store.database import open_database
from tests.support.ledger_laws import EPOCH, LATER_S, Watched, totals
from tests.support.ledger_records import GPU, One, record

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60
RECORDS = 600
TURNS = 4
PROGRAM = """
import sys
from pathlib import Path
from tests.integration.store.test_ledger_killed import keep
keep(Path(sys.argv[1]))
"""


def one(number: int) -> bytes:
    """A job of 20 s each half minute; each fifth is told 40 minutes late."""
    number = number - 80 if number % 5 == 0 and number >= 80 else number
    job = One(1, 30 * number, 30 * number + 20, trace=number + 1, kind="job", job=f"job-{number}", outcome="ok")
    return record(
        job, One(2, 30 * number + 5, 30 * number + 10, parent=1, trace=number + 1), seen={GPU: (number // 2,) * 2}
    )


def keep(path: Path) -> None:
    """What the process does: three records at a time, from where the store is."""
    watched = Watched(open_database(path, owner=True))
    first = watched.ledger.position(EPOCH)
    print(first, flush=True)
    while first < RECORDS:
        watched.ledger.apply(EPOCH, first, [one(number) for number in range(first, min(first + 3, RECORDS))])
        first += 3
        print(first, flush=True)


def test_a_ledger_whose_process_is_killed_is_the_one_of_a_process_that_is_not(tmp_path: Path) -> None:
    path = tmp_path / "killed.db"
    for turn in range(TURNS):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        for _ in range(10 + 7 * turn):
            assert process.stdout.readline()
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        killed = Watched(open_database(path, owner=True))
        killed.ledger.book()
        killed.prove()
        killed.database.close()
    killed = Watched(open_database(path, owner=True))
    reached = killed.ledger.position(EPOCH)
    assert 0 < reached < RECORDS
    killed.ledger.apply(EPOCH, reached - 2, [one(number) for number in range(reached - 2, reached + 20)])
    whole = Watched(open_database(tmp_path / "whole.db", owner=True))
    whole.apply(*(one(number) for number in range(reached + 20)))
    for watched in (killed, whole):
        watched.now_s += LATER_S
        watched.settle()
        watched.prove()
    assert killed.books() == whole.books()
    assert totals(whole.books())["span 2"] > 0
    killed.database.close()
    whole.database.close()
