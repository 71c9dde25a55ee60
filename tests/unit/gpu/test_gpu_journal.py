"""The journal of GPU samples: what is kept over a restart, what goes, what is read beside it, and damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lmdb
import numpy as np
import pytest

from otel_pipeline.gpu import journal
from otel_pipeline.gpu.ingest import Block, Device, Samples
from otel_pipeline.gpu.journal import Incomplete, Journal
from otel_pipeline.gpu.overview import states
from otel_pipeline.gpu.quantities import Quantity

if TYPE_CHECKING:
    from pathlib import Path

S = 1_000_000_000
NOW_S = 1_800_000_000.0
TRACE = bytes(range(16))


def samples(at_s: float, watts: float = 300.0, gpu: str = "GPU-a") -> Samples:
    times = np.array([at_s - 1, at_s, at_s - 2], np.float64).astype(np.int64) * S
    values = np.array([1.0, watts, 2.0])
    device = Device(("pod", "name"), gpu, 0, "NVIDIA L40S", memory_bytes={"limit": 48e9})
    return Samples([Block(("pod", "name"), gpu, Quantity.POWER, times, values, "agent")], [device], [(("pod",), 7)])


def incomplete(spans: int, reason: str = "late") -> Incomplete:
    halves = np.frombuffer(TRACE, ">i8").astype(np.int64)
    ids = np.array([[*halves, number] for number in range(spans)], np.int64)
    told = [{"name": "a", "reason": reason}, {"name": "b", "reason": reason}]
    return Incomplete(ids, np.arange(spans) % 2, told)


def place(folder: Path) -> Path:
    return folder / "components" / "pipelines" / "metrics" / "gpu_stats" / journal.DIRECTORY


@pytest.fixture
def opened(tmp_path: Path) -> Journal:
    found = Journal(place(tmp_path))
    assert found.load(NOW_S) == []
    return found


def test_samples_come_back_as_they_were_with_the_time_of_their_arrival(opened: Journal, tmp_path: Path) -> None:
    opened.write(NOW_S, [samples(NOW_S)], [])
    opened.close()
    again = Journal(place(tmp_path))
    [(received_ns, found)] = again.load(NOW_S + 60)
    again.close()
    given = samples(NOW_S)
    assert received_ns == int(NOW_S) * S
    assert found.sent_ns == given.sent_ns
    assert found.devices == given.devices
    block, expected = found.blocks[0], given.blocks[0]
    assert block.times_ns.tolist() == expected.times_ns.tolist()
    assert block.values.tolist() == expected.values.tolist()
    assert (block.hosts, block.quantity, block.source) == (("pod", "name"), Quantity.POWER, "agent")


def test_what_is_old_is_not_loaded_and_goes_with_the_next_write(opened: Journal, tmp_path: Path) -> None:
    opened.write(NOW_S, [samples(NOW_S)], [])
    later_s = NOW_S + journal.GPU_JOURNAL_S + 1
    opened.write(later_s, [samples(later_s)], [])
    opened.close()
    [(received_ns, _)] = journal.latest(place(tmp_path), 1e9)
    assert received_ns == int(later_s) * S


def test_of_too_much_the_oldest_goes(opened: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened._samples, "_weight_max", 2 * len(journal.encode(samples(NOW_S))))
    for second in range(5):
        opened.write(NOW_S + second, [samples(NOW_S + second)], [])
    opened.close()
    kept = [received_ns // S - int(NOW_S) for received_ns, _ in journal.latest(place(tmp_path), 1e9)]
    assert kept == [2, 3, 4]  # what was written last comes on top


def test_why_spans_are_incomplete_is_found_by_their_trace(opened: Journal, tmp_path: Path) -> None:
    opened.write(NOW_S, [], [incomplete(3)])
    opened.close()
    found = journal.explained(place(tmp_path), TRACE)
    assert [(one["span_id"], one["name"], one["reason"]) for one in found] == [
        (f"{number:016x}", "ab"[number % 2], "late") for number in range(3)
    ]
    assert journal.explained(place(tmp_path), TRACE[::-1]) == []


def test_of_too_many_spans_the_oldest_are_forgotten(
    opened: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened._explained, "_weight_max", 10)
    for number in range(6):
        opened.write(NOW_S + number, [], [incomplete(4, str(number))])
    opened.close()
    again = Journal(place(tmp_path))
    again.load(NOW_S)
    again.close()
    assert again._explained._weight == 12
    assert {one["reason"] for one in journal.explained(place(tmp_path), TRACE)} == {"3", "4", "5"}


def test_a_damaged_record_costs_itself(opened: Journal, tmp_path: Path) -> None:
    opened.write(NOW_S, [samples(NOW_S)], [incomplete(1)])
    opened.close()
    for name, record in ((b"samples", b"{\n"), (b"explained", TRACE), (b"explained", b'{"count": 9}\n' + TRACE)):
        with lmdb.open(str(place(tmp_path)), max_dbs=2) as env, env.begin(write=True) as txn:
            txn.put(journal.KEY.pack(int(NOW_S * 1000), 77), record, db=env.open_db(name, txn=txn))
    again = Journal(place(tmp_path))
    assert len(again.load(NOW_S)) == 1
    again.close()
    assert len(journal.explained(place(tmp_path), TRACE)) == 1


def test_a_file_that_is_none_is_begun_anew(tmp_path: Path) -> None:
    place(tmp_path).mkdir(parents=True)
    (place(tmp_path) / "data.mdb").write_bytes(b"\0" * 65_536)
    fresh = Journal(place(tmp_path))
    assert fresh.load(NOW_S) == []
    fresh.write(NOW_S, [samples(NOW_S)], [])
    fresh.close()
    assert len(journal.latest(place(tmp_path), 60.0)) == 1


def test_a_journal_without_a_place_keeps_nothing_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = Journal(tmp_path / "file" / "gpu")
    assert nowhere.load(NOW_S) == []
    nowhere.write(NOW_S, [samples(NOW_S)], [])
    nowhere.close()
    assert journal.files(tmp_path) == []


def test_records_are_merged_series_by_series() -> None:
    found = journal.merged([samples(NOW_S), samples(NOW_S + 3, 7.0), samples(NOW_S, gpu="GPU-b")])
    assert [(block.gpu, len(block.values)) for block in found.blocks] == [("GPU-a", 6), ("GPU-b", 3)]
    assert found.blocks[0].values.tolist() == [1.0, 300.0, 2.0, 1.0, 7.0, 2.0]
    assert [device.gpu for device in found.devices] == ["GPU-a", "GPU-b"]
    assert journal.merged([]).blocks == []


def test_the_overview_has_the_latest_of_each_gpu() -> None:
    records = [
        (int(NOW_S) * S, samples(NOW_S, 100.0)),
        (int(NOW_S + 5) * S, samples(NOW_S + 5, 250.0)),
        (int(NOW_S + 1) * S, samples(NOW_S + 1, 50.0, "GPU-b")),
    ]
    first, second = states(records, int(NOW_S + 7) * S)
    assert (first.host, first.gpu, first.index, first.name) == ("pod", "GPU-a", 0, "NVIDIA L40S")
    assert (first.power_w, first.energy_j, first.memory_limit_bytes, first.age_s) == (250.0, None, 48e9, 2.0)
    assert (second.gpu, second.power_w, second.age_s) == ("GPU-b", 50.0, 6.0)
