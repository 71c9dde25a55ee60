"""The demo's bill: waits until the ledger is booked, then shows what the commands of `otel-pipeline ledger` say.

They run as processes, beside the running gateway, as somebody would type them.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from otel_pipeline.demo.processes import DemoError
from otel_pipeline.ledger.booking import HOUR_NS
from otel_pipeline.ledger.money import NANO
from otel_pipeline.store.database import open_database
from otel_pipeline.store.ledger_tables import DIRTY
from otel_pipeline.store.ledger_windows import booked_ns

if TYPE_CHECKING:
    from pathlib import Path

    from otel_pipeline.demo.environment import Environment
    from otel_pipeline.store.database import Database

BOOKED_S_MAX: Final = 20.0
"""Lateness, and the time between two looks of the ledger, three times over."""
COMMAND_S_MAX: Final = 30.0
POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Question:
    """A command of `otel-pipeline ledger`, and what it tells."""

    title: str
    arguments: tuple[str, ...]
    needs_prices: bool = False


def questions(since_ns: int) -> tuple[Question, ...]:
    """What is asked of the ledger after a run that began at `since_ns`."""
    # A whole hour: what a run of seconds costs must not be cut at a minute.
    hour_s = since_ns // HOUR_NS * HOUR_NS // NANO
    since = ("--from", time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(hour_s)))
    return (
        Question("What each GPU cost (both are simulated), used or idle", ("report", *since, "--by", "gpu")),
        Question("What each backend cost, and what nobody used", ("report", *since, "--by", "backend")),
        Question("What each job cost, over all its attempts", ("jobs", *since)),
        Question("Does it add up? Allocated once more, and compared", ("verify", "--recompute"), needs_prices=True),
    )


async def render(environment: Environment, since_ns: int, until_ns: int) -> str:
    """The bill of a run from `since_ns` to `until_ns`, when that much is booked."""
    await asyncio.to_thread(wait_until_booked, environment.folder, until_ns)
    asked = questions(since_ns)
    # At once: each spends most of its second on imports.
    answers = await asyncio.gather(*(_answer(environment, one) for one in asked))
    parts = [f"{one.title}\n$ {typed(environment, one)}\n{answer}" for one, answer in zip(asked, answers, strict=True)]
    return "\n\n".join(parts)


def typed(environment: Environment, question: Question) -> str:
    """The command as somebody would type it, wherever he is."""
    return shlex.join(("otel-pipeline", *_words(environment, question)))


def wait_until_booked(folder: Path, until_ns: int, patience_s: float = BOOKED_S_MAX) -> None:
    """Returns when the ledger in the folder is booked until then; DemoError if it takes too long."""
    deadline_s = time.monotonic() + patience_s
    database = open_database(folder / "store.db", owner=False)
    try:
        while not _is_booked(database, until_ns):
            if time.monotonic() > deadline_s:
                raise DemoError(f"the ledger was not booked within {patience_s:.0f} s")
            time.sleep(POLL_S)
    finally:
        database.close()


def _is_booked(database: Database, until_ns: int) -> bool:
    with database.read() as connection:
        waiting = connection.execute(sa.select(sa.func.count()).select_from(DIRTY)).scalar_one()
        return not waiting and booked_ns(connection) >= until_ns


async def _answer(environment: Environment, question: Question) -> str:
    command = environment.own_command(*_words(environment, question))
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment.variables(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_S_MAX)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode("utf-8", "replace").rstrip()
    if process.returncode:
        raise DemoError(f"{shlex.join(command)} ended with {process.returncode}:\n{text}")
    return text


def _words(environment: Environment, question: Question) -> tuple[str, ...]:
    prices = environment.config_option if question.needs_prices else ()
    return ("ledger", *question.arguments, *environment.data_dir_option, *prices)
