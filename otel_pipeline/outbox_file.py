"""The outbox's directory: who may open it, with which promises, and what is done with a file that cannot be read."""

from __future__ import annotations

import fcntl
import logging
import time
from typing import TYPE_CHECKING, Any

import lmdb

from otel_pipeline.errors import OutboxError
from otel_pipeline.limits import OUTBOX_DATABASES_MAX, OUTBOX_HEADROOM_BYTES
from otel_pipeline.outbox_state import PAGE

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


def open_environment(directory: Path, bytes_max: int, *, durable: bool) -> lmdb.Environment:
    """Open the file; `durable`: each commit waits for the disk. One that cannot be read is set aside, never deleted."""
    map_size = bytes_max + bytes_max // 4 + OUTBOX_HEADROOM_BYTES
    options: dict[str, Any] = {
        "map_size": map_size // PAGE * PAGE,
        "max_dbs": OUTBOX_DATABASES_MAX,
        "sync": durable,
        "metasync": durable,
        "readahead": False,
        "mode": 0o600,
    }
    try:
        return lmdb.open(str(directory), **options)
    except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
        aside = directory / f"data.mdb.unreadable-{int(time.time())}"
        log.error(  # noqa: TRY400 - the reason says all
            "the outbox cannot be read (%s): set aside as %s, starting with an empty one", error, aside
        )
        (directory / "data.mdb").rename(aside)
        (directory / "lock.mdb").unlink(missing_ok=True)
        return lmdb.open(str(directory), **options)
    except lmdb.Error as error:
        raise OutboxError(f"cannot open the outbox in {directory}: {error}") from error


def lock_directory(directory: Path) -> Any:
    """One gateway a directory: LMDB itself would let a second one in, and both would deliver."""
    guard = (directory / "gateway.lock").open("w")
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        guard.close()
        raise OutboxError(f"another gateway uses {directory}") from None
    return guard
