# ruff: noqa: PLC0415, S501
# Imports come after our hooks, or do not come at all. All servers are on loopback.
"""A worker that starts, works and ends in one of several ways, for tests of what hooks do at a process's start and end.

    python -c 'from tests.support.worker_exits import main; main()' '{"redis": ..., "comfyui": ..., "runs": [...]}'

Each of the `runs` says how to end (`kind`), which hook throws from the start on (`fault`: `*` for all, null to be
without us) and in which folder the child leaves what it printed and which hooks were reached. Each is a fork of this
process, which has imported the libraries, and nothing of ours; the answer is a line of JSON with their exit codes.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from tests.support import comfyui_stub

AT_ONCE: Final = 3
CUSTOM_NODE: Final = Path(__file__).resolve().parents[2] / "otel_pipeline" / "worker" / "comfyui" / "custom_node"
TEXT: Final = json.dumps({"job_id": "job-1", "user_id": "u", "workflow": "portrait"})


def own_job(task: Any) -> Any:
    """OTEL_PIPELINE_JOB_FUNCTIONS names it, as `__main__:own_job`."""
    return task


def returns(_: Any) -> None:
    pass


def exits(_: Any) -> None:
    sys.exit(3)


def raises(_: Any) -> None:
    raise ValueError("of the host")


def terminated(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def terminated_with_a_handler(_: Any) -> None:
    def stop(signum: int, _frame: Any) -> None:
        print("asked to stop by", signum, flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()


def vanishes(_: Any) -> None:
    os._exit(4)


def thread_dies(client: Any) -> None:
    def work() -> None:
        print(client.rpush("jobs:queue", TEXT), client.lpop("jobs:queue"), flush=True)
        raise KeyError("of a thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def forks(client: Any) -> None:
    import multiprocessing

    client.rpush("jobs:queue", TEXT, TEXT)
    child = multiprocessing.get_context("fork").Process(target=_in_a_child, args=(client,))
    child.start()
    child.join()
    print("child ended with", child.exitcode, flush=True)
    pid = os.fork()
    if pid == 0:
        print(client.lpop("jobs:queue"), flush=True)
        os._exit(6)
    print("child ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _in_a_child(client: Any) -> None:
    print(client.lpop("jobs:queue"), flush=True)
    sys.exit(5)


def rq_in_a_fork(client: Any) -> None:
    """RQ's worker proper, whose work horse is a fork that ends with os._exit."""
    from rq import Queue, Worker
    from rq.job import Job

    queue = Queue("clips", connection=client)
    queue.enqueue("tests.support.worker_exits.own_job", 1, job_id="one")
    queue.enqueue("tests.support.worker_exits.vanishes", 1, job_id="two")
    Worker([queue], connection=client).work(burst=True, logging_level="ERROR")
    print([Job.fetch(each, connection=client).get_status().value for each in ("one", "two")], flush=True)


def late_imports(_: Any) -> None:
    import colorsys

    import dramatiq
    from dramatiq.brokers.stub import StubBroker

    broker = StubBroker()
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(own_job, broker=broker)
    print(colorsys.rgb_to_hsv(1, 1, 1), actor.send(1).args, flush=True)


def first_process_of_a_container(_: Any) -> None:
    """The kernel keeps a signal from it for which it has no handler."""
    pid, os.getpid = os.getpid(), lambda: 1
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(pid, signal.SIGTERM)
    os.getpid = lambda: pid


def comfyui_in_mid_prompt(_: Any) -> None:
    sys.path.insert(0, str(comfyui_stub.FOLDER))
    import execution  # type: ignore[import-not-found]

    executor = execution.PromptExecutor(None)
    prompt = {
        "1": {"class_type": "Slow", "inputs": {}},
        "9": {"class_type": "Out", "inputs": {"text": ["1", 0]}},
    }
    threading.Thread(target=executor.execute, args=(prompt, "prompt-1", {}, ["9"]), daemon=True).start()
    while not execution.working:
        time.sleep(0.001)
    print([event for event, _ in executor.status_messages], flush=True)
    sys.exit(3)


def comfyui_with_a_custom_node(_: Any) -> None:
    """Ours, if we are there: it brings no nodes."""
    nodes = {}
    if "otel_pipeline.worker.guard" in sys.modules:
        for name in ("prestartup_script", "__init__"):
            nodes.update(runpy.run_path(str(CUSTOM_NODE / f"{name}.py")).get("NODE_CLASS_MAPPINGS", {}))
    print(nodes, flush=True)


KINDS: Final = {
    each.__name__: each
    for each in (
        returns,
        exits,
        raises,
        terminated,
        terminated_with_a_handler,
        vanishes,
        thread_dies,
        forks,
        rq_in_a_fork,
        late_imports,
        first_process_of_a_container,
        comfyui_in_mid_prompt,
        comfyui_with_a_custom_node,
    )
}


def main() -> None:
    options = json.loads(sys.argv[1])
    import httpx  # noqa: F401  for all
    import opentelemetry.sdk.trace  # noqa: F401
    import redis  # noqa: F401
    import rq  # noqa: F401

    codes: dict[int, int] = {}
    running: dict[int, int] = {}
    for number, each in enumerate(options["runs"]):
        while len(running) >= AT_ONCE:
            _collect(running, codes)
        pid = os.fork()
        if pid == 0:
            _be(options, number, **each)
            return
        running[pid] = number
    while running:
        _collect(running, codes)
    print(json.dumps([codes[number] for number in sorted(codes)]), flush=True)


def _collect(running: dict[int, int], codes: dict[int, int]) -> None:
    pid, status = os.wait()
    codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)


def _be(options: dict[str, Any], number: int, kind: str, fault: str | None, folder: str) -> None:
    """The worker. Returns, or not, as its kind does."""
    for descriptor, name in ((1, "out"), (2, "error")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    if fault is not None:
        _with_us(fault, f"{folder}/reached")
    import httpx
    import redis

    client = redis.Redis.from_url(options["redis"].removesuffix("/0") + f"/{number % 16}")
    client.flushdb()
    graph = {"1": {"class_type": "EmptyImage", "inputs": {}}, "9": {"class_type": "SaveImage", "inputs": {}}}
    http = httpx.Client(verify=False)
    print(http.post(options["comfyui"] + "/prompt", json={"prompt": graph}).status_code, flush=True)
    print(client.rpush("jobs:queue", TEXT), client.lpop("jobs:queue"), flush=True)
    print(http.post(options["comfyui"] + "/prompt", json={"prompt": graph}).status_code, flush=True)
    sys.modules["__main__"].own_job = own_job  # type: ignore[attr-defined]
    print(own_job(2), flush=True)
    KINDS[kind](client)
    print("the end", flush=True)


def _with_us(wanted: str, file: str) -> None:
    from otel_pipeline.worker import guard

    init, call = guard.Hook.__init__, guard.Hook.__call__
    seen: set[str] = set()

    def faulty(self: Any, name: str, function: Any) -> None:
        init(self, name, function)
        if wanted in ("*", name):
            self.fault = RuntimeError(f"injected into {name}")

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.name not in seen and not (args and args[0] is None):
            seen.add(self.name)
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, self.name.encode() + b"\n")
            os.close(descriptor)
        return call(self, *args, **kwargs)

    guard.Hook.__init__ = faulty  # type: ignore[method-assign]
    guard.Hook.__call__ = noted  # type: ignore[method-assign]
    from tests.benchmarks.worker_load import instrument

    instrument("ours")
