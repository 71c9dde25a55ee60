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
    from collections.abc import Sequence
    from pathlib import Path

    from otel_pipeline.demo.environment import Environment
    from otel_pipeline.store.database import Database

BOOKED_S_MAX: Final = 40.0
"""Lateness, and the time between two looks of the ledger, make 8 s; on a busy machine more."""
COMMAND_S_MAX: Final = 60.0
POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Question:
    """A command of `otel-pipeline ledger`, and what it tells."""

    title: str
    arguments: tuple[str, ...]
    needs_prices: bool = False


def questions(since_ns: int, until_ns: int) -> tuple[Question, ...]:
    """What is asked of the ledger after a run that began at `since_ns`; it is booked until `until_ns`."""
    # From the hour's begin: samples pay for whole minutes, so GPUs are paid for from before the demo began. To a fixed
    # end: the simulated GPUs go on, and so does the booking, while these commands run one a little after the other.
    window = (*_since(since_ns), "--to", _utc(until_ns))
    return (
        Question("What each GPU cost (both are simulated), used or idle", ("report", *window, "--by", "gpu")),
        Question("What each backend cost, and what nobody used", ("report", *window, "--by", "backend")),
        Question("What each job cost, over all its attempts", ("jobs", *window)),
        Question("Does it add up? Allocated once more, and compared", ("verify", "--recompute"), needs_prices=True),
    )


def later(since_ns: int) -> Question:
    """What may be asked as long as the demo runs."""
    return Question("What each GPU cost until now", ("report", *_since(since_ns), "--by", "gpu"))


async def render(environment: Environment, asked: Sequence[Question]) -> str:
    """The bill: all answers, each below what was asked."""
    # At once: each spends most of its second on imports.
    answers = await asyncio.gather(*(_answer(environment, one) for one in asked))
    parts = [f"{one.title}\n$ {typed(environment, one)}\n{answer}" for one, answer in zip(asked, answers, strict=True)]
    return "\n\n".join(parts)


def typed(environment: Environment, question: Question) -> str:
    """The command as somebody would type it, wherever he is."""
    return shlex.join(("otel-pipeline", *_words(environment, question)))


def wait_until_booked(folder: Path, until_ns: int, patience_s: float = BOOKED_S_MAX) -> int:
    """Waits until the ledger in the folder is booked until then, and tells until when it is; DemoError if it takes too
    long.
    """
    deadline_s = time.monotonic() + patience_s
    database = open_database(folder / "store.db", owner=False)
    try:
        while (booked := _booked_ns(database)) < until_ns:
            if time.monotonic() > deadline_s:
                raise DemoError(f"the ledger was not booked within {patience_s:.0f} s")
            time.sleep(POLL_S)
    finally:
        database.close()
    return booked


def _booked_ns(database: Database) -> int:
    """0 while something is marked that is not booked yet."""
    with database.read() as connection:
        waiting = connection.execute(sa.select(sa.func.count()).select_from(DIRTY)).scalar_one()
        return 0 if waiting else booked_ns(connection)


def _since(since_ns: int) -> tuple[str, str]:
    return "--from", _utc(since_ns // HOUR_NS * HOUR_NS)


def _utc(at_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ns // NANO))


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
