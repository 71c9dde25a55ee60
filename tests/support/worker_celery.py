# ruff: noqa: PLC0415
# Imports come after our hooks, or do not come at all. All servers are on loopback.
"""A Celery worker with children, each ended in its own way, for tests of what hooks do in it and in its parent.

    python -c 'from tests.support.worker_celery import main; main()' '{"redis": ..., "mode": ..., "folder": ...}'

Mode `plain` is one round of the tasks without us. Mode `faults` is one with us for no hook, for each of `hooks`
(beginnings of their names), and for all: it throws in every process. The answer is a line of JSON: what the program
that sends the tasks and the worker's own receivers and log saw in each, and which hooks threw.
"""

from __future__ import annotations

import gc
import json
import logging
import mmap
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

ROUND_S_MAX: Final = 10.0
QUIET_S: Final = 1.0
"""How long the round without us is listened to after its last result."""
LATE_S_MAX: Final = 5.0
"""How long the other rounds may take until they have said as much."""
IDS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
NUMBERS: Final = re.compile(r"\d+")
ENDINGS: Final = ("terminated", "hard", "killed", "soft")
OTHERS: Final = ("expired", "good", "fails", "again", "told")
"""Sent when the endings are over: what Celery has given to a child that is about to be killed may be lost."""
ALL: Final = "*"


def tasks(url: str) -> Any:
    """The program's app."""
    import celery
    import redis

    app = celery.Celery("clips", broker=url, backend=url)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        result_backend_always_retry=False,
    )
    store = redis.Redis.from_url(url)

    def good(job_id: str) -> dict[str, str]:
        return {"status": "failed", "of": job_id}

    def fails(job_id: str) -> None:
        raise ValueError(job_id)

    def again(task: Any, job_id: str) -> int:
        if task.request.retries == 0:
            # Not at once: the second attempt's result could be stored before it is stored that there will be one.
            raise task.retry(countdown=0.2, exc=KeyError(job_id))
        return int(task.request.retries)

    def told(task: Any, job_id: str) -> str:
        task.update_state(state="FAILURE", meta={"exc_type": "ValueError", "exc_message": job_id})
        return "told"

    def soft(_: str) -> str:
        from billiard.exceptions import SoftTimeLimitExceeded

        # Celery raises this in whatever runs. In the `__del__` of what an earlier task left behind Python drops it.
        gc.collect()
        gc.disable()
        try:
            while True:
                store.get("anything")
        except SoftTimeLimitExceeded:
            return "asked to stop"
        finally:
            gc.enable()

    def sleeps(job_id: str) -> None:
        store.set(f"began {job_id}", 1)
        time.sleep(60)

    def killed(_: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    for function in (good, fails, killed):
        app.task(name=function.__name__)(function)
    for bound in (again, told):
        app.task(name=bound.__name__, bind=True)(bound)
    app.task(name="soft", soft_time_limit=0.3)(soft)
    app.task(name="hard", time_limit=0.5)(sleeps)
    app.task(name="terminated")(sleeps)
    app.task(name="expired")(good)
    return app


class Listener(logging.Handler):
    """Writes down what the worker's own receivers and its log are told, without what differs from run to run."""

    def __init__(self, file: Path) -> None:
        from celery import signals

        super().__init__(logging.ERROR)
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        signals.worker_ready.connect(self.ready)
        signals.task_failure.connect(self.failed)
        signals.task_revoked.connect(self.revoked)
        logging.getLogger("celery").addHandler(self)

    def ready(self, **_: Any) -> None:
        self.note("ready")

    def failed(self, sender: Any = None, exception: Any = None, **_: Any) -> None:
        self.note(f"failed {sender.name} {type(exception).__name__} {exception}")

    def revoked(self, sender: Any = None, terminated: Any = None, expired: Any = None, **_: Any) -> None:
        self.note(f"revoked {sender.name} {terminated} {expired}")

    def emit(self, record: logging.LogRecord) -> None:
        self.note(f"{record.levelname} {record.getMessage()}")

    def note(self, text: str) -> None:
        os.write(self._file, alike(text).replace("\n", " ").encode() + b"\n")


class Heard:
    """What the listener wrote since the last round."""

    def __init__(self, file: Path) -> None:
        self._file, self._before = file, 0

    def lines(self) -> list[str]:
        return sorted(self._file.read_text("utf-8").splitlines()[self._before :]) if self._file.exists() else []

    def forget(self) -> None:
        self._before += len(self.lines())


class Faults:
    """Which hook throws and which did, in memory that the processes of the pool share."""

    def __init__(self) -> None:
        from otel_pipeline.worker.guard import HOOKS, Hook

        self.names = sorted(HOOKS)
        self._places = {name: place for place, name in enumerate(self.names)}
        self._broken = mmap.mmap(-1, len(self.names))
        self._threw = mmap.mmap(-1, len(self.names))
        call = Hook.__call__

        def faulty(hook: Any, *args: Any, **kwargs: Any) -> Any:
            place = self._places[hook.name]
            hook.fault = RuntimeError(f"injected into {hook.name}") if self._broken[place] else None
            if hook.fault is not None and not (args and args[0] is None):
                self._threw[place] = 1
            return call(hook, *args, **kwargs)

        Hook.__call__ = faulty  # type: ignore[method-assign]

    def throw_in(self, wanted: str | None) -> None:
        for name, place in self._places.items():
            self._broken[place] = wanted in (name, ALL)

    def threw(self, name: str) -> bool:
        return bool(self._threw[self._places[name]])


def play(app: Any, heard: Heard, done: Callable[[list[str]], bool]) -> dict[str, Any]:
    """Sends each task; what became of it, and what was heard of it."""
    client = app.backend.client
    client.delete("began terminated")
    late = datetime.now(UTC) - timedelta(minutes=1)
    results: dict[str, Any] = {}
    for names in ENDINGS, OTHERS:
        sent = {
            name: app.tasks[name].apply_async((name,), expires=late if name == "expired" else None) for name in names
        }
        if "terminated" in sent:
            wait(lambda: client.get("began terminated"), "the task to terminate")
            app.control.revoke(sent["terminated"].id, terminate=True)
        results |= {name: _result(app, name, each.id) for name, each in sent.items()}
    _until(lambda: done(heard.lines()), LATE_S_MAX)
    told = heard.lines()
    heard.forget()
    return {**results, "heard": told}


def _result(app: Any, name: str, task_id: str) -> list[Any]:
    wait(lambda: app.backend.get_task_meta(task_id)["status"] in ("SUCCESS", "FAILURE", "REVOKED"), name)
    meta = app.backend.get_task_meta(task_id)
    result = meta["result"]
    return [meta["status"], type(result).__name__, alike(str(result)), "injected" in str(meta["traceback"])]


def alike(text: str) -> str:
    return NUMBERS.sub("n", IDS.sub("id", text))


def wait(done: Callable[[], Any], what: str) -> None:
    if not _until(done, ROUND_S_MAX):
        raise TimeoutError(what)


def _until(done: Callable[[], Any], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def plain(app: Any, heard: Heard) -> dict[str, Any]:
    """Listens for a while, because nobody knows yet what there is to hear."""
    asked_s: list[float] = []

    def quiet(_: list[str]) -> bool:
        asked_s.append(time.monotonic())
        return asked_s[-1] - asked_s[0] > QUIET_S

    return play(app, heard, quiet)


def with_faults(app: Any, heard: Heard, faults: Faults, options: Mapping[str, Any]) -> dict[str, Any]:
    wanted = options["wanted"]
    broken = [name for name in faults.names if name.startswith(tuple(options["hooks"]))]
    seen = {}
    for each in (None, *broken, ALL):
        faults.throw_in(each)
        try:
            seen[str(each)] = play(app, heard, lambda lines: lines == wanted["heard"])
        except TimeoutError as error:
            raise TimeoutError(f"{error}, with an exception in {each}, heard {heard.lines()}") from None
        if each in broken:  # by a thread of ours, perhaps, once a child is dead
            _until(lambda name=each: faults.threw(name), LATE_S_MAX)  # type: ignore[misc]
    faults.throw_in(None)
    return {"seen": seen, "thrown": {name: faults.threw(name) for name in broken}}


def main() -> None:
    options = json.loads(sys.argv[1])
    faults = None
    if options["mode"] == "faults":
        from tests.benchmarks.worker_load import instrument
        from tests.support.worker_battery.run import load_all

        instrument("ours")
        load_all()
        faults = Faults()
    app, file = tasks(options["redis"]), Path(options["folder"]) / f"{options['mode']}.heard"
    app.finalize()
    pid = os.fork()
    if pid == 0:
        _work(app, file)
    heard = Heard(file)
    try:
        wait(lambda: heard.lines() == ["ready"], "the worker")
        heard.forget()
        answer = plain(app, heard) if faults is None else with_faults(app, heard, faults, options)
        print("\n" + json.dumps(answer), flush=True)
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _work(app: Any, file: Path) -> NoReturn:
    """The worker, whose processes are a group. It is killed."""
    os.setsid()
    listener = Listener(file)
    app.Worker(pool="prefork", concurrency=4, loglevel="ERROR", quiet=True).start()
    listener.note("ended")
    os._exit(1)
