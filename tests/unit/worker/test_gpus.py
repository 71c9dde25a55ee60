from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_pipeline.worker.process import gpus
from otel_pipeline.worker.process.gpus import Gpu

A, B, C = (f"GPU-{letter * 8}-1111-2222-3333-444444444444" for letter in "abc")
ALIKE = (Gpu(A, "RTX 4090"), Gpu(B, "RTX 4090"), Gpu(C, "RTX 4090"))
MIXED = (Gpu(A, "T4"), Gpu(B, "RTX 4090"), Gpu(C, "RTX 4090"))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[Gpu, ...]], None]:
    def install(found: tuple[Gpu, ...]) -> None:
        monkeypatch.setattr(gpus, "installed", lambda _root: found)

    return install


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, (A, B, C)),
        ("0", (A,)),
        ("2,0", (C, A)),
        ("0,9,1", (A,)),
        ("0,-1,1", (A,)),
        ("-1", ()),
        ("", ()),
        ("NoDevFiles", ()),
        (" 1 , 2 ", (B, C)),
        (A, (A,)),
        ("GPU-bbbb", (B,)),
        ("GPU-", ()),
        ("GPU-dddd", ()),
        ("1,1", (B,)),
        ("MIG-3eb87630-93d5-5b2b-b8ff-9b359caf4ee2", ("MIG-3eb87630-93d5-5b2b-b8ff-9b359caf4ee2",)),
        (f"MIG-{A}/1/0", (f"MIG-{A}/1/0",)),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_does(
    chosen: str | None, expected: tuple[str, ...], installed: Callable[[tuple[Gpu, ...]], None]
) -> None:
    installed(ALIKE)
    environment = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert gpus.visible(environment, Path("/")) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, (A,)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2"}, (A, B, C)),
        ({"CUDA_VISIBLE_DEVICES": B}, (B,)),
        ({}, (A, B, C)),
    ],
)
def test_an_index_among_different_gpus_is_not_guessed(
    environment: dict[str, str], expected: tuple[str, ...], installed: Callable[[tuple[Gpu, ...]], None]
) -> None:
    installed(MIXED)
    assert gpus.visible(environment, Path("/")) == expected


@pytest.mark.parametrize(
    ("granted", "expected"),
    [("all", (A, B, C)), ("none", ()), ("void", ()), (f"{B},{C}", (B, C)), ("1", (A, B, C)), ("GPU-eeee", (A, B, C))],
)
def test_a_container_may_be_given_some_of_them(
    granted: str, expected: tuple[str, ...], installed: Callable[[tuple[Gpu, ...]], None]
) -> None:
    installed(ALIKE)
    assert gpus.visible({"NVIDIA_VISIBLE_DEVICES": granted}, Path("/")) == expected


def test_uuids_given_to_a_container_are_known_without_a_driver(
    installed: Callable[[tuple[Gpu, ...]], None],
) -> None:
    installed(())
    assert gpus.visible({"NVIDIA_VISIBLE_DEVICES": f"{A},{B}"}, Path("/")) == (A, B)
    assert gpus.visible({"NVIDIA_VISIBLE_DEVICES": f"{A},{B}", "CUDA_VISIBLE_DEVICES": "1"}, Path("/")) == (B,)
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": f"{C},GPU-short"}, Path("/")) == (C,)
    assert gpus.visible({"CUDA_VISIBLE_DEVICES": "0"}, Path("/")) == ()


def test_the_drivers_files_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_from_nvml", lambda: ())
    for bus, uuid in (("0000:41:00.0", B), ("0000:01:00.0", A), ("0000:81:00.0", "GPU-????????-????")):
        folder = tmp_path / "proc/driver/nvidia/gpus" / bus
        folder.mkdir(parents=True)
        (folder / "information").write_text(f"Model: \t\t RTX 4090\nIRQ:   123\nGPU UUID: \t {uuid}\nno colon\n")
    assert gpus.installed(tmp_path) == (Gpu(A, "RTX 4090"), Gpu(B, "RTX 4090"))


def test_a_driver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ends: list[float] = []

    def hang() -> tuple[Gpu, ...]:
        while not ends:
            time.sleep(0.005)
        return ()

    monkeypatch.setattr(gpus, "_from_nvml", hang)
    monkeypatch.setattr(gpus, "NVML_TIMEOUT_S", 0.05)
    assert gpus.installed(tmp_path) == ()
    ends.append(0.0)


def test_a_driver_in_trouble_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> tuple[Gpu, ...]:
        raise RuntimeError("driver/library version mismatch")

    monkeypatch.setattr(gpus, "_from_nvml", fail)
    assert gpus.installed(tmp_path) == ()
