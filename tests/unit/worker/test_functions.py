"""Named functions: each call is a job, or completes the one that was popped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.worker_script import Finished, run

TRACER = "from opentelemetry import trace\ntracer = trace.get_tracer('program')\n"

KINDS = """
    import asyncio

    def plain(prompt_id, *, fail=False):
        if fail:
            raise ValueError("no model")
        return prompt_id

    async def coroutine(prompt_id):
        await asyncio.sleep(0)
        return prompt_id

    def generator(count):
        for number in range(count):
            yield number
        return count

    async def async_generator(count):
        for number in range(count):
            yield number

    class Base:
        def inherited(self, task):
            return task

    class Renderer(Base):
        def method(self, task):
            return task

        @staticmethod
        def static(task):
            return task

        @classmethod
        def made(cls, task):
            return cls.__name__, task

        async def amethod(self, task):
            return task
"""
NAMES = "plain coroutine generator async_generator Renderer.inherited Renderer.method Renderer.static Renderer.made"
SPECS = ",".join(f"kinds:{name}" for name in [*NAMES.split(), "Renderer.amethod"])

USES_ALL = """
    import asyncio, inspect, pickle
    import kinds
    from kinds import plain, Renderer

    async def list_of(source):
        return [each async for each in source]

    assert pickle.loads(pickle.dumps(plain)) is plain
    assert [inspect.iscoroutinefunction(f) for f in (plain, kinds.coroutine, Renderer.amethod)] == [False, True, True]
    assert inspect.isgeneratorfunction(kinds.generator) and inspect.isasyncgenfunction(kinds.async_generator)
    assert str(inspect.signature(plain)) == "(prompt_id, *, fail=False)"
    renderer = Renderer()
    print([
        plain(1), asyncio.run(kinds.coroutine(2)), list(kinds.generator(2)),
        asyncio.run(list_of(kinds.async_generator(2))),
        renderer.inherited(3), renderer.method(4), Renderer.static(5), renderer.static(6), Renderer.made(7),
        asyncio.run(renderer.amethod(8)), kinds.Base().inherited(9),
    ])
    try:
        plain("p", fail=True)
    except ValueError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("kinds")
    return run(
        folder,
        {"worker.py": USES_ALL, "kinds.py": KINDS},
        environment={"OTEL_PIPELINE_JOB_FUNCTIONS": SPECS},
    )


def test_functions_of_every_kind_stay_what_they_are(all_kinds: Finished) -> None:
    assert all_kinds.returncode == 0, all_kinds.errors
    assert all_kinds.output.splitlines() == [
        "[1, 2, [0, 1], [0, 1], 3, 4, 5, 6, ('Renderer', 7), 8, 9]",
        "no model",
    ]


@pytest.mark.parametrize("name", [*NAMES.split(), "Renderer.amethod"])
def test_each_call_of_every_kind_is_a_job(all_kinds: Finished, name: str) -> None:
    calls = {"plain": 2, "Renderer.static": 2}
    assert len(all_kinds.named(f"process {name}")) == calls.get(name, 1)


def test_an_escaping_exception_fails_the_job(all_kinds: Finished) -> None:
    first, second = all_kinds.named("process plain")
    assert (first.outcome, first.error) == ("completed", False)
    assert (second.outcome, second.source, second.get("error.type")) == ("failed", "exception", "ValueError")


def test_a_method_of_the_parent_class_is_left_alone(all_kinds: Finished) -> None:
    assert len(all_kinds.named("process Renderer.inherited")) == 1


MAIN = """
    from pathlib import Path
    from opentelemetry import trace

    tracer = trace.get_tracer("program")

    def process(job_id):
        with tracer.start_as_current_span("work"):
            return {"error": "CUDA out of memory"} if job_id == "b" else {"ok": True}

    class Worker:
        def run(self):
            for job_id in Path("jobs.txt").read_text().split():
                process(job_id)

    if __name__ == "__main__":
        Worker().run()
"""


@pytest.mark.parametrize("module", ["__main__", "worker", "app.worker"])
def test_a_function_of_the_script_itself_is_found_by_any_of_its_names(tmp_path: Path, module: str) -> None:
    done = run(
        tmp_path,
        {"app/worker.py": MAIN, "jobs.txt": "a b"},
        environment={"OTEL_PIPELINE_JOB_FUNCTIONS": f"{module}:process"},
    )
    assert done.returncode == 0, done.errors
    jobs = done.named("process process")
    assert [job.outcome for job in jobs] == ["completed", "failed"]
    assert [work.parent_id for work in done.named("work")] == [job.span_id for job in jobs]
    assert done.roots() == ["process process", "process process"]


def test_the_call_is_a_child_of_the_span_it_is_made_in(tmp_path: Path) -> None:
    script = """
        from opentelemetry import trace
        import kinds
        with trace.get_tracer("program").start_as_current_span("request"):
            kinds.plain(1)
    """
    done = run(
        tmp_path,
        {"worker.py": script, "kinds.py": KINDS},
        environment={"OTEL_PIPELINE_JOB_FUNCTIONS": "kinds:plain"},
    )
    assert done.one("process plain").parent_id == done.one("request").span_id


def test_a_named_function_that_another_one_calls_is_part_of_its_job(tmp_path: Path) -> None:
    script = """
        import steps
        steps.outer()
    """
    steps = """
        def inner(number):
            raise RuntimeError("retried")
        def outer():
            try:
                inner(1)
            except RuntimeError:
                return "second try"
    """
    done = run(
        tmp_path,
        {"worker.py": script, "steps.py": steps},
        environment={"OTEL_PIPELINE_JOB_FUNCTIONS": "steps:inner, steps:outer"},
    )
    assert [(span.name, span.outcome) for span in done.spans] == [("process outer", "completed")]


def test_what_is_not_found_is_told_once(tmp_path: Path) -> None:
    script = """
        import logging, time
        logging.basicConfig()
        time.sleep(0)
    """
    done = run(
        tmp_path,
        {"worker.py": script},
        environment={"OTEL_PIPELINE_JOB_FUNCTIONS": "worker:missing, nowhere.at:all, nonsense"},
    )
    assert done.returncode == 0
    assert "there was no worker:missing" in done.errors
    assert "there was no nowhere.at:all" in done.errors


POPPED = """
    import asyncio
    from otel_pipeline.worker import flow, jobs   # stands for an adapter's pop
    import steps

    def pop(identifier):
        flow.next_pop(["queue"])
        flow.popped(jobs.job_start(jobs.Origin("redis", "queue"), job_id=identifier))

    for identifier in ("one", "two"):
        pop(identifier)
        try:
            steps.process(identifier)
        except KeyError:
            pass
    flow.next_pop(["queue"])
"""


def test_the_call_completes_the_job_that_was_popped_for_it(tmp_path: Path) -> None:
    steps = """
        def process(identifier):
            if identifier == "two":
                raise KeyError(identifier)
            return (False, "no such voice")
    """
    done = run(
        tmp_path,
        {"worker.py": POPPED, "steps.py": steps},
        environment={"OTEL_PIPELINE_JOB_FUNCTIONS": "steps:process"},
    )
    assert done.returncode == 0, done.errors
    found: list[Any] = [(span.name, span.get("otel_pipeline.job.id"), span.outcome, span.source) for span in done.spans]
    assert found == [("process queue", "one", "failed", "return"), ("process queue", "two", "failed", "exception")]
