"""The file exporter: lines that can be read back, no half record, no lost record."""

from __future__ import annotations

import gzip
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from otel_pipeline.errors import Refused, Unavailable
from otel_pipeline.event_loop import EventLoop
from otel_pipeline.exporters.file import MIB, FileExporter, Rotation
from otel_pipeline.wire import otlp_json
from otel_pipeline.wire.signal import Signal
from tests.support.net import context
from tests.support.otlp import logs, traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., FileExporter]]:
    host = EventLoop()
    made: list[FileExporter] = []

    def build(**settings: Any) -> FileExporter:
        config = FileExporter.Config.model_validate({"path": str(tmp_path / "out"), **settings})
        made.append(FileExporter(config, context(host)))
        return made[-1]

    yield build
    for exporter in made:
        exporter.close()
    host.stop()


def requests_in(path: Path) -> list[bytes]:
    return [otlp_json.decode(Signal.TRACES, line) for line in path.read_bytes().splitlines()]


def test_each_request_is_a_line_of_otlp_json(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    exporter = make()
    assert exporter.deliver(Signal.TRACES, traces(["a"])) == 0
    assert exporter.deliver(Signal.LOGS, logs(["b"])) == 0
    first, second = (tmp_path / "out").read_text().splitlines()
    assert otlp_json.decode(Signal.TRACES, first.encode()) == traces(["a"])
    assert otlp_json.decode(Signal.LOGS, second.encode()) == logs(["b"])


def test_format_proto_has_each_request_behind_its_length(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    exporter = make(format="proto")
    for request in (traces(["a"]), traces(["b", "c"])):
        exporter.deliver(Signal.TRACES, request)
    data = (tmp_path / "out").read_bytes()
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    assert found == [traces(["a"]), traces(["b", "c"])]


def test_compressed_requests_are_members_of_one_gzip_file(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    exporter = make(compression="gzip")
    for name in "ab":
        exporter.deliver(Signal.TRACES, traces([name]))
    lines = gzip.decompress((tmp_path / "out").read_bytes()).splitlines()
    assert [otlp_json.decode(Signal.TRACES, line) for line in lines] == [traces(["a"]), traces(["b"])]


@pytest.mark.parametrize(("append", "left"), [(False, [["b"]]), (True, [["a"], ["b"]])])
def test_a_new_start_begins_anew_or_continues(
    tmp_path: Path, make: Callable[..., FileExporter], *, append: bool, left: list[list[str]]
) -> None:
    for name in "ab":
        exporter = make(append=append)
        exporter.deliver(Signal.TRACES, traces([name]))
        exporter.close()
    assert requests_in(tmp_path / "out") == [traces(names) for names in left]


def test_a_file_that_cannot_be_opened_stops_the_start(make: Callable[..., FileExporter]) -> None:
    with pytest.raises(OSError, match="nowhere"):
        make(path="/nowhere/at/all")


def test_a_batch_that_cannot_be_written_as_json_is_refused_not_tried_for_ever(
    tmp_path: Path, make: Callable[..., FileExporter]
) -> None:
    with pytest.raises(Refused, match="cannot be written as JSON"):
        make().deliver(Signal.TRACES, b"\x0a\xff")
    assert (tmp_path / "out").read_bytes() == b""


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writes beyond are cut, then fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("append", [False, True])
def test_a_full_disk_is_for_later_and_leaves_no_half_record(
    tmp_path: Path, make: Callable[..., FileExporter], *, append: bool
) -> None:
    exporter = make(append=append)
    exporter.deliver(Signal.TRACES, traces(["a"]))
    before = (tmp_path / "out").stat().st_size
    for _ in range(2):
        with files_no_larger_than(before + 10), pytest.raises(Unavailable, match="out"):
            exporter.deliver(Signal.TRACES, traces(["b"]))
        assert (tmp_path / "out").stat().st_size == before
    exporter.deliver(Signal.TRACES, traces(["b"]))
    assert requests_in(tmp_path / "out") == [traces(["a"]), traces(["b"])]


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    exporter = make()
    exporter.deliver(Signal.TRACES, traces(["a"]))
    (tmp_path / "out").rename(tmp_path / "moved")
    exporter.deliver(Signal.TRACES, traces(["b"]))
    assert requests_in(tmp_path / "moved") == [traces(["a"])]
    assert requests_in(tmp_path / "out") == [traces(["b"])]


def test_a_lost_folder_is_for_later(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    exporter = make(path=str(folder / "out"))
    folder.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(Unavailable, match="folder"):
            exporter.deliver(Signal.TRACES, traces(["a"]))
    folder.mkdir()
    exporter.deliver(Signal.TRACES, traces(["a"]))
    assert requests_in(folder / "out") == [traces(["a"])]


def records(tmp_path: Path) -> dict[str, int]:
    return {path.name: len(requests_in(path)) for path in sorted(tmp_path.iterdir())}


def test_a_large_file_is_rotated_and_the_oldest_given_up(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    exporter = make(rotation={"max_megabytes": 1, "max_backups": 2})
    half = traces(["x" * (MIB // 2 - 1000)])
    counts = []
    for _ in range(7):
        exporter.deliver(Signal.TRACES, half)
        counts.append(records(tmp_path))
    assert counts[1] == {"out": 2}
    assert counts[2] == {"out": 1, "out.1": 2}
    assert counts[6] == {"out": 1, "out.1": 2, "out.2": 2}


def test_a_record_above_the_size_gets_a_file_of_its_own(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    exporter = make(rotation=Rotation(max_megabytes=1).model_dump())
    for _ in range(2):
        exporter.deliver(Signal.TRACES, traces(["x" * (2 * MIB)]))
    assert records(tmp_path) == {"out": 1, "out.1": 1}


def test_with_rotation_a_new_start_continues(tmp_path: Path, make: Callable[..., FileExporter]) -> None:
    for name in "ab":
        make(rotation={}).deliver(Signal.TRACES, traces([name]))
    assert requests_in(tmp_path / "out") == [traces(["a"]), traces(["b"])]


def test_a_rotation_that_fails_half_way_loses_nothing(
    tmp_path: Path, make: Callable[..., FileExporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = make(rotation={"max_megabytes": 1})
    large = traces(["x" * (MIB - 1000)])
    exporter.deliver(Signal.TRACES, large)

    def no_room() -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exporter, "_open", no_room)
        for _ in range(2):
            with pytest.raises(Unavailable, match="No space left"):
                exporter.deliver(Signal.TRACES, large)
    exporter.deliver(Signal.TRACES, large)
    assert records(tmp_path) == {"out": 1, "out.1": 1}
