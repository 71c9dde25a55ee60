"""Servers for a test, stopped behind it; when it fails, the ends of their logs are part of the report."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.e2e.gateway import Sink
from tests.e2e.support import Launcher

LAUNCHERS = pytest.StashKey[list[Launcher]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LAUNCHERS] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        logs = [log for launcher in item.config.stash[LAUNCHERS] for log in launcher.logs()]
        report.sections.extend((f"log of {name}", text) for name, text in logs)
    return report


def _launched(config: pytest.Config, factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with Launcher(factory.mktemp("servers")) as launcher:
        config.stash[LAUNCHERS].append(launcher)
        try:
            yield launcher
        finally:
            config.stash[LAUNCHERS].remove(launcher)


@pytest.fixture
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts processes for one test."""
    yield from _launched(request.config, tmp_path_factory)


@pytest.fixture(scope="module")
def module_launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts processes for all tests of a module."""
    yield from _launched(request.config, tmp_path_factory)


@pytest.fixture
def backend() -> Iterator[Sink]:
    """A backend that is not up yet."""
    sink = Sink()
    try:
        yield sink
    finally:
        sink.down()


@pytest.fixture
def sink(backend: Sink) -> Sink:
    """A backend that is up."""
    backend.up()
    return backend
