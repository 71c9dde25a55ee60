"""A PostgreSQL server of one test run, on a socket in a temporary directory. As root it is run by another user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 60


def binaries() -> Path | None:
    """Where Debian, or the system's PATH, has the server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def server_for_tests() -> Iterator[str]:
    """The URL of a server with an empty database. Where none is installed tests are skipped, and fail in CI."""
    programs = binaries()
    if programs is None:
        assert not os.environ.get("CI"), "CI has no PostgreSQL server: scripts/install-peers postgresql"
        pytest.skip("there is no PostgreSQL server: scripts/install-peers postgresql")
    pytest.importorskip("psycopg")
    with server(programs) as url:
        yield url


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """A server with an empty database; its URL."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(directory, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(programs / program), "-D", str(directory / "data"), *arguments]
        subprocess.run(command, check=True, timeout=TIMEOUT_S, stdout=subprocess.DEVNULL, user=user, cwd=directory)

    options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
    try:
        run("initdb", "-A", "trust", "-U", "test", "-E", "UTF8", "--no-sync")
        run("pg_ctl", "-o", options, "-l", str(directory / "log"), "-w", "start")
        try:
            yield f"postgresql://test@/postgres?host={directory}"
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(directory)
