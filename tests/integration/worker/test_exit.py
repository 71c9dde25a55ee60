"""How processes end under `opentelemetry-instrument`: all arrives, jobs have their outcome, the exit is bounded."""

from __future__ import annotations

import signal
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.net import free_endpoint
from tests.support.worker_program import finish, run, start, told
from tests.support.worker_sink import WorkerSink, black_hole, worker_sink


@pytest.fixture
def sink() -> Iterator[WorkerSink]:
    with worker_sink() as found:
        yield found


def outcome(sink: WorkerSink, name: str = "process q") -> tuple[str, str, str | None]:
    span = sink.one(name)
    return (
        span.get("otel_pipeline.job.outcome"),
        span.get("otel_pipeline.job.outcome_source"),
        span.get("error.type"),
    )


# -- signals -----------------------------------------------------------------------------------------------------------


def test_a_sigterm_in_mid_job_sends_all_and_cancels_the_job(tmp_path: Path, sink: WorkerSink) -> None:
    process = start(
        tmp_path, "begin()\nwith tracer.start_as_current_span('work'): pass\nready()\ntime.sleep(60)", sink.url
    )
    told(process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.returncode == -signal.SIGTERM
    assert outcome(sink) == ("cancelled", "signal", "SIGTERM")
    assert sink.one("work").trace_id == sink.one("process q").trace_id
    assert ended.errors == ""
    assert {"job_start", "job_cancelled"} <= {record.name for record in sink.logs}


def test_a_job_that_was_acknowledged_is_not_cancelled(tmp_path: Path, sink: WorkerSink) -> None:
    process = start(tmp_path, "begin().settle()\nready()\ntime.sleep(60)", sink.url)
    told(process)
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == -signal.SIGTERM
    assert outcome(sink)[0] == "completed"


def test_a_handler_of_the_program_takes_the_place_of_ours(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    job = begin()
    running = True
    def stop(number, frame):
        global running
        running = False
    assert signal.signal(signal.SIGTERM, stop).__name__ == "_on_sigterm"
    assert signal.getsignal(signal.SIGTERM) is stop
    ready()
    while running:
        time.sleep(0.01)
    print("left the loop")
    """
    process = start(tmp_path, body, sink.url)
    told(process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert (ended.returncode, ended.output) == (0, "left the loop\n")
    assert outcome(sink) == ("completed", "end", None)


def test_a_handler_that_calls_sys_exit_cancels_the_job(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    begin()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    ready()
    time.sleep(60)
    """
    process = start(tmp_path, body, sink.url)
    told(process)
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 7
    assert outcome(sink) == ("cancelled", "signal", "SIGTERM")


def test_sys_exit_in_a_job_function_by_a_signal_cancels_the_job(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    from otel_pipeline.worker.flow import exception_evidence
    def work():
        job = begin()
        try:
            ready()
            time.sleep(60)
        except BaseException as error:
            job_end(job, exception_evidence(error))
            raise
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work()
    """
    process = start(tmp_path, body, sink.url)
    told(process)
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 1
    assert outcome(sink) == ("cancelled", "signal", "SIGTERM")


def test_asyncios_handler_works_as_without_us(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    import asyncio
    async def main():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        begin()
        ready()
        await stop.wait()
        print("stopped")
    asyncio.run(main())
    """
    process = start(tmp_path, body, sink.url)
    told(process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert (ended.returncode, ended.output) == (0, "stopped\n")
    assert outcome(sink)[0] == "completed"


def test_ctrl_c_cancels_the_job(tmp_path: Path, sink: WorkerSink) -> None:
    process = start(tmp_path, "begin()\nready()\ntime.sleep(60)", sink.url)
    told(process)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.returncode == -signal.SIGINT
    assert outcome(sink) == ("cancelled", "exception", "KeyboardInterrupt")
    assert ended.errors.strip().endswith("KeyboardInterrupt")


# -- exits -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "expected"),
    [
        ("begin()", 0, ("completed", "end", None)),
        ("begin()\nraise ValueError('no')", 1, ("failed", "exception", "ValueError")),
        ("begin()\nsys.exit(0)", 0, ("completed", "end", None)),
        ("begin()\nsys.exit(3)", 3, ("failed", "exception", "SystemExit")),
        ("begin()\nos._exit(0)", 0, ("completed", "end", None)),
        ("begin()\nos._exit(5)", 5, ("failed", "signal", "os._exit")),
        ("thread = threading.Thread(target=begin)\nthread.start()\nthread.join()", 0, ("completed", "end", None)),
        (
            "def work():\n    begin()\n    raise KeyError('x')\n"
            "thread = threading.Thread(target=work)\nthread.start()\nthread.join()",
            0,
            ("failed", "exception", "KeyError"),
        ),
        (
            "def work():\n    begin()\n    ready()\n    time.sleep(60)\n"
            "threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.3)",
            0,
            ("unknown", "end", None),
        ),
    ],
    ids=["return", "exception", "exit-0", "exit-3", "_exit-0", "_exit-5", "thread", "thread-dies", "daemon-at-work"],
)
def test_the_end_of_the_process_ends_the_job(
    tmp_path: Path, sink: WorkerSink, body: str, code: int, expected: Sequence[str | None]
) -> None:
    ended = run(tmp_path, body, sink.url)
    assert ended.returncode == code, ended.errors
    assert outcome(sink) == expected


def test_os_exit_after_a_flush_loses_nothing(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    job = begin()
    with tracer.start_as_current_span("work"):
        logging.warning("at work")
    job_end(job)
    assert lifecycle.flush()
    before = time.monotonic()
    assert lifecycle.flush()
    assert time.monotonic() - before < 0.005, "nothing new: no second flush"
    os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(tmp_path, body, sink.url).returncode == -signal.SIGKILL
    assert {span.name for span in sink.spans} == {"work", "process q"}
    [record] = [record for record in sink.logs if record.value == "at work"]
    assert record.trace_id == sink.one("process q").trace_id
    assert record.get("otel_pipeline.job.id") == "j-1"
    assert record.get("otel_pipeline.correlation_id") == "j-1"
    assert sink.point("otel_pipeline.jobs.ended").get("otel_pipeline.job.outcome") == "completed"


def test_worker_active_is_one_at_work_and_zero_at_the_end(tmp_path: Path, sink: WorkerSink) -> None:
    run(tmp_path, "begin()\nlifecycle.flush(5)", sink.url)
    values = [point.value for point in sink.points if point.name == "worker_active"]
    assert values[-1] == 0
    run(tmp_path, "job_end(begin())\nlifecycle.flush(5)\nos.kill(os.getpid(), signal.SIGKILL)", sink.url)
    assert sink.point("worker_active").value == 1
    assert sink.point("worker_active").get("worker")


# -- children ----------------------------------------------------------------------------------------------------------

CHILD = """
def child(number=0):
    job = begin("child")
    with tracer.start_as_current_span("work in child"):
        pass
    job_end(job)
    return os.getpid()
"""


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (
            "process = multiprocessing.get_context('fork').Process(target=child)\nprocess.start()\nprocess.join()\n"
            "assert process.exitcode == 0",
            1,
        ),
        (
            "process = multiprocessing.get_context('forkserver').Process(target=child)\nprocess.start()\n"
            "process.join()\nassert process.exitcode == 0",
            1,
        ),
        (
            "process = multiprocessing.get_context('spawn').Process(target=child)\nprocess.start()\nprocess.join()\n"
            "assert process.exitcode == 0",
            1,
        ),
        ("pool = multiprocessing.get_context('fork').Pool(2)\npool.map(child, range(4))\npool.close()\npool.join()", 4),
        ("with multiprocessing.get_context('fork').Pool(2) as pool:\n    pool.map(child, range(4))", 4),
        (
            "with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context('fork')) as pool:\n"
            "    list(pool.map(child, range(4)))",
            4,
        ),
        ("if os.fork() == 0:\n    child()\n    sys.exit(0)\nassert os.wait()[1] == 0", 1),
        ("if os.fork() == 0:\n    child()\n    os._exit(0)\nassert os.wait()[1] == 0", 1),
    ],
    ids=["fork", "forkserver", "spawn", "pool", "pool-terminated", "executor", "os.fork-exit", "os.fork-_exit"],
)
def test_a_child_loses_nothing(tmp_path: Path, sink: WorkerSink, body: str, count: int) -> None:
    guarded = f"if __name__ == '__main__':\n    begin('parent')\n{textwrap.indent(body, '    ')}"
    ended = run(tmp_path, CHILD + guarded, sink.url)
    assert ended.returncode == 0, ended.errors
    assert len(sink.named("work in child")) == count
    assert len(sink.named("process child")) == count
    assert sink.one("process parent").get("otel_pipeline.job.outcome") == "completed"
    assert len({span.span_id for span in sink.spans}) == len(sink.spans)


def test_a_child_that_dies_of_an_exception_fails_its_job(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    def child():
        begin("child")
        raise ValueError("no")
    if __name__ == "__main__":
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 1
    """
    assert run(tmp_path, body, sink.url).returncode == 0
    assert outcome(sink, "process child") == ("failed", "exception", "ValueError")


def test_a_child_does_not_end_the_job_of_its_parent(tmp_path: Path, sink: WorkerSink) -> None:
    body = """
    job = begin()
    if os.fork() == 0:
        job_end(job)
        sys.exit(1)
    os.wait()
    job_end(job)
    """
    run(tmp_path, body, sink.url)
    assert outcome(sink)[0] == "completed"


# -- our own faults ----------------------------------------------------------------------------------------------------

FAULTY = """
from otel_pipeline.worker.guard import HOOKS
for name, each in HOOKS.items():
    each.fault = RuntimeError("injected")
import traceback
job = job_start(Origin("redis", "q"))
logging.basicConfig(format="%(message)s", stream=sys.stdout)
logging.error("logged")
try:
    raise ValueError("printed")
except ValueError:
    traceback.print_exc(file=sys.stdout)
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
if os.fork() == 0:
    os._exit(0)
assert os.wait()[1] == 0
"""


def test_faults_in_our_hooks_do_not_change_how_a_program_ends(tmp_path: Path, sink: WorkerSink) -> None:
    ended = run(tmp_path, FAULTY + "sys.exit(3)", sink.url)
    assert (ended.returncode, ended.errors) == (3, "")
    words = ended.output.split()
    assert {"logged", "thread"} < set(words)
    assert "ValueError: printed" in ended.output


def test_faults_in_our_hooks_do_not_keep_a_signal_from_ending_a_program(tmp_path: Path, sink: WorkerSink) -> None:
    process = start(tmp_path, FAULTY + "print(flush=True)\nready()\ntime.sleep(60)", sink.url)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "ready":
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == -signal.SIGTERM


# -- nobody listens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("how", ["refused", "hole"])
def test_without_a_gateway_the_exit_is_delayed_by_three_seconds_at_most(
    tmp_path: Path, protocol: str, how: str
) -> None:
    body = "begin()\nlogging.getLogger('x').warning('w')\nprint(time.time(), flush=True)"
    none = {f"OTEL_{name}_EXPORTER": "none" for name in ("TRACES", "METRICS", "LOGS")}
    plain = run(tmp_path, body, "http://127.0.0.1:1", **none)
    with black_hole() as hole:
        ended = run(
            tmp_path, body, hole if how == "hole" else f"http://{free_endpoint()}", OTEL_EXPORTER_OTLP_PROTOCOL=protocol
        )
    assert ended.returncode == 0
    assert ended.errors == ""
    assert ended.exit_s - plain.exit_s <= 3.0


def test_without_a_gateway_a_sigterm_is_obeyed_in_time(tmp_path: Path) -> None:
    with black_hole() as hole:
        process = start(tmp_path, "begin()\nready()\ntime.sleep(60)", hole)
        told(process)
        sent_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended = finish(process)
    assert ended.returncode == -signal.SIGTERM
    assert time.monotonic() - sent_s < 3.5
    assert ended.errors == ""


def test_without_a_gateway_a_flush_keeps_its_time(tmp_path: Path) -> None:
    body = """
    job_end(begin())
    before = time.monotonic()
    assert not lifecycle.flush(0.5)
    assert not lifecycle.flush(0.5)
    assert time.monotonic() - before < 2
    assert threading.active_count() < 12
    print("ok", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    with black_hole() as hole:
        assert run(tmp_path, body, hole).output == "ok\n"
