"""Which GPUs a span ran on."""

from __future__ import annotations

import pytest

from otel_pipeline.gpu.resolve import Found, How, resolve
from otel_pipeline.gpu.timeline import Device

A, B, C, D = (f"GPU-{letter}0000000-0000-0000-0000-000000000000" for letter in "abcd")
ONE = (Device(A, 0, "L40S"),)
FOUR = tuple(Device(uuid, index, "L40S") for index, uuid in enumerate((A, B, C, D)))
MIXED = (Device(A, 0, "L40S"), Device(B, 1, "H100"))
UNNUMBERED = tuple(Device(uuid, None, "L40S") for uuid in (A, B))


@pytest.mark.parametrize(
    ("span", "gpus"),
    [
        ({"hw.id": B}, (B,)),
        ({"gpu.uuid": B}, (B,)),
        ({"gpu.uuid": [B, C, B]}, (B, C)),
        ({"otel_pipeline.gpu.ids": (C, D), "hw.id": A}, (C, D)),
        ({"hw.id": f"{A}, {B}"}, (A, B)),
        ({"hw.id": "GPU-c"}, (C,)),
        ({"hw.id": 3}, (D,)),
        ({"hw.id": "2"}, (C,)),
        ({"hw.id": "elsewhere"}, ("elsewhere",)),
    ],
)
def test_a_span_that_names_its_gpus_is_believed(span: dict[str, object], gpus: tuple[str, ...]) -> None:
    assert resolve(span, {"CUDA_VISIBLE_DEVICES": A}, FOUR) == Found(gpus, How.SPAN)


@pytest.mark.parametrize("span", [{}, {"hw.id": ""}, {"hw.id": None}, {"hw.id": 1.5}, {"hw.id": "x" * 300}])
def test_the_hosts_only_gpu_is_it(span: dict[str, object]) -> None:
    assert resolve(span, {}, ONE) == Found((A,), How.ONLY_GPU)


@pytest.mark.parametrize(
    ("resource", "gpus"),
    [
        ({"CUDA_VISIBLE_DEVICES": B}, (B,)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-d"}, (B, D)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, (B,)),
        ({"CUDA_VISIBLE_DEVICES": 1}, (B,)),
        ({"process.environment_variable.CUDA_VISIBLE_DEVICES": "3,1"}, (D, B)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (A, B, C, D)),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, (B,)),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1"}, ("MIG-1",)),
        ({"NVIDIA_VISIBLE_DEVICES": C}, (C,)),
        ({"NVIDIA_VISIBLE_DEVICES": "2"}, (C,)),
        ({"NVIDIA_VISIBLE_DEVICES": f"{D},{C}", "CUDA_VISIBLE_DEVICES": "0"}, (C,)),
        ({"otel_pipeline.gpu.ids": [B]}, (B,)),
        ({"otel_pipeline.gpu.ids": [B, C], "NVIDIA_VISIBLE_DEVICES": "all"}, (B, C)),
    ],
)
def test_what_the_process_was_given_counts(resource: dict[str, object], gpus: tuple[str, ...]) -> None:
    assert resolve({}, resource, FOUR) == Found(gpus, How.VISIBLE)


@pytest.mark.parametrize(
    "resource",
    [{}, {"NVIDIA_VISIBLE_DEVICES": "all"}, {"otel_pipeline.gpu.ids": [A, B, C, D]}, {"CUDA_VISIBLE_DEVICES": "7"}],
)
def test_several_gpus_and_no_choice_are_ambiguous(resource: dict[str, object]) -> None:
    assert resolve({}, resource, FOUR) == Found((), How.AMBIGUOUS)


@pytest.mark.parametrize("devices", [MIXED, UNNUMBERED])
def test_an_index_is_not_followed_where_cuda_may_count_otherwise(devices: tuple[Device, ...]) -> None:
    assert resolve({}, {"CUDA_VISIBLE_DEVICES": "1"}, devices).how is How.AMBIGUOUS


def test_with_the_drivers_order_an_index_is_followed() -> None:
    resource = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert resolve({}, resource, MIXED) == Found((B,), How.VISIBLE)


@pytest.mark.parametrize("resource", [{}, {"CUDA_VISIBLE_DEVICES": ""}, {"NVIDIA_VISIBLE_DEVICES": "void"}])
def test_without_gpus_there_is_none(resource: dict[str, object]) -> None:
    assert resolve({}, resource, ()) == Found((), How.NONE)


def test_a_process_that_may_use_no_gpu_has_none_even_on_a_host_with_one() -> None:
    assert resolve({}, {"CUDA_VISIBLE_DEVICES": "-1"}, ONE) == Found((), How.NONE)


def test_gpus_that_a_process_names_before_their_samples_come_are_taken() -> None:
    assert resolve({}, {"otel_pipeline.gpu.ids": [A]}, ()) == Found((A,), How.VISIBLE)
    assert resolve({}, {"CUDA_VISIBLE_DEVICES": B}, ()) == Found((B,), How.VISIBLE)
