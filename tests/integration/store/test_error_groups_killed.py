"""A process that is killed while it counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from otel_pipeline.store.database import open_database
from otel_pipeline.store.error_groups import ErrorGroups
from tests.support.error_group_laws import A, Watched
from tests.support.error_occurrences import NOW_S, Seen, record

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 60
RECORDS = 100_000
PROGRAM = """
import sys
from pathlib import Path
from tests.integration.store.test_error_groups_killed import count
count(Path(sys.argv[1]))
"""


def one(number: int) -> bytes:
    return record([Seen(trace=number + 1, span=number + 1)])


def count(path: Path) -> None:
    """What the process does: one record after the other, three at a time, from where the store is."""
    book = ErrorGroups(open_database(path, owner=True), clock=lambda: NOW_S)
    first = book.position("epoch")
    print(first, flush=True)
    while first < RECORDS:
        book.apply("epoch", first, [one(number) for number in range(first, first + 3)])
        print(first, flush=True)
        first += 3


def test_what_a_killed_process_has_counted_is_where_its_position_is(tmp_path: Path) -> None:
    path, applied = tmp_path / "store.db", -1
    for turn in range(3):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        for _ in range(5 + turn):
            assert process.stdout.readline()
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
        watched = Watched(open_database(path, owner=True))
        position = watched.book.position("epoch")
        assert position > applied
        assert (watched.group(A).count, watched.group(A).traces) == (position, position)
        applied = position
        watched.book.apply("epoch", max(0, position - 5), [one(number) for number in range(position - 5, position + 1)])
        applied += 1
        assert watched.group(A).count == applied
        watched.book.close()
