from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import nvml_stub

A, B = (f"GPU-{letter * 8}-1111-2222-3333-444444444444" for letter in "ab")
GPUS = ((A, "NVIDIA GeForce RTX 4090"), (B, "NVIDIA GeForce RTX 4090"))
CODE = """
import json, sys, time
from otel_pipeline.worker.process import resource
start_s = time.monotonic()
found = resource.attributes()
print(json.dumps([found.get(resource.GPU_IDS), found.get(resource.GPU_COUNT), time.monotonic() - start_s]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml_stub.build(tmp_path_factory.mktemp("nvml"))


def found(environment: Mapping[str, str]) -> Any:
    kept = {name: value for name, value in os.environ.items() if "VISIBLE_DEVICES" not in name}
    command = (sys.executable, "-c", CODE)
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=30, check=True)
    return json.loads(done.stdout)


def test_the_gpus_of_a_machine_are_told_by_nvml(library: Path) -> None:
    assert found(nvml_stub.environment(library, GPUS))[:2] == [[A, B], 2]


def test_those_that_cuda_does_not_show_are_left_out(library: Path) -> None:
    environment = {**nvml_stub.environment(library, GPUS), "CUDA_VISIBLE_DEVICES": "1"}
    assert found(environment)[:2] == [[B], 1]


@pytest.mark.parametrize("code", ["9", "18", "999"])
def test_a_driver_in_trouble_is_no_gpu(code: str, library: Path) -> None:
    environment = {**nvml_stub.environment(library, GPUS), "NVML_STUB_INIT": code}
    assert found(environment)[:2] == [None, None]


def test_a_driver_that_hangs_delays_the_start_by_a_second_and_not_the_exit(library: Path) -> None:
    environment = {**nvml_stub.environment(library, GPUS), "NVML_STUB_HANG": "1"}
    uuids, _, took_s = found(environment)
    assert uuids is None
    assert 0.9 < took_s < 10


def test_without_the_library_there_is_no_gpu() -> None:
    assert found({})[0] is None
