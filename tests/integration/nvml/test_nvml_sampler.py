"""The sampler over the real pynvml and a library in C that behaves as a driver does, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from otel_pipeline.nvml.samples import Failure, Quantity, Reading, Series
from tests.support import nvml_stub
from tests.support.nvml_stub.control import ORIGIN_S, RINGS, gpu, uuid
from tests.support.nvml_stub.drive import BOOTED_S, readings

FAST: Final = {"retry_s": 5.0, "rescan_s": 5.0, "rare_s": 2.0}
A, B = uuid(0), uuid(1)


@pytest.fixture(scope="session")
def library() -> Path:
    return nvml_stub.built()


def series(reading: Reading, quantity: Quantity, device: str = A, **attributes: str) -> list[Series]:
    wanted = tuple(attributes.items())
    return [
        one
        for one in reading.series
        if one.device == device and one.quantity is quantity and set(wanted) <= set(one.attributes)
    ]


def only(reading: Reading, quantity: Quantity, device: str = A, **attributes: str) -> Series:
    found = series(reading, quantity, device, **attributes)
    assert len(found) == 1, found
    return found[0]


def at_s(one: Series) -> list[float]:
    return [round((each - ORIGIN_S * 10**9) / 1e9, 4) for each in one.times_unix_nano]


def codes(failures: tuple[Failure, ...]) -> list[tuple[str, str]]:
    return [(one.code, one.device) for one in failures]


# -- everything there --------------------------------------------------------------------------------------------------


def test_eight_gpus_tell_everything_at_ten_hertz(tmp_path: Path, library: Path) -> None:
    shown = "\n".join(gpu(index, "process 4711 2147483648 37") for index in range(8))
    (reading,) = readings(tmp_path, library, shown, ("run", 10.0), pacing=FAST)
    assert [one.uuid for one in reading.devices] == [uuid(index) for index in range(8)]
    assert {one.model for one in reading.devices} == {"NVIDIA H100 80GB HBM3"}
    assert {one.memory_limit_bytes for one in reading.devices} == {80 * 2**30}
    for device in reading.devices:
        told = {one.quantity for one in reading.series if one.device == device.uuid}
        assert told == set(Quantity) - {Quantity.XID}
        assert [len(only(reading, each, device.uuid).values) for each in (Quantity.ENERGY, Quantity.MEMORY_USED)] == [
            101
        ] * 2
    assert (reading.failures, reading.absent) == ((), ())


def test_the_energy_counter_is_read_to_the_joule(tmp_path: Path, library: Path) -> None:
    (reading,) = readings(tmp_path, library, gpu(0, "ramp power 0=100 10=300"), ("run", 10.0))
    energy = only(reading, Quantity.ENERGY)
    assert energy.values[-1] == pytest.approx(2000.0)
    assert at_s(energy)[-1] == 10.0
    assert energy.values == sorted(energy.values)


def test_values_have_the_units_of_their_quantity(tmp_path: Path, library: Path) -> None:
    shown = gpu(0, "step throttle 0=68", "step ecc_corrected 0=3", "process 9 1024 37")
    (reading,) = readings(tmp_path, library, shown, ("run", 2.0))
    assert set(only(reading, Quantity.UTILIZATION).values) == {0.5}
    assert set(only(reading, Quantity.MEMORY_UTILIZATION).values) == {0.2}
    assert set(only(reading, Quantity.POWER).values) == {100.0}
    assert set(only(reading, Quantity.CLOCK, domain="memory").values) == {2_619e6}
    assert set(only(reading, Quantity.TEMPERATURE, sensor="memory").values) == {45}
    assert set(only(reading, Quantity.ERRORS, kind="corrected").values) == {3}
    assert set(only(reading, Quantity.PROCESS_MEMORY, pid="9").values) == {1024}
    assert set(only(reading, Quantity.PROCESS_UTILIZATION, pid="9").values) == {0.37}
    throttled = {one.attributes[0][1] for one in series(reading, Quantity.THROTTLED) if 1.0 in one.values}
    assert throttled == {"sw_power_cap", "hw_thermal"}


def test_only_what_is_wanted_is_asked_for(tmp_path: Path, library: Path) -> None:
    shown = gpu(0, "fail nvmlDeviceGetMemoryInfo 15", *RINGS)
    wanted = (Quantity.POWER, Quantity.ENERGY)
    (reading,) = readings(
        tmp_path, library, shown.replace("memory_total 85899345920", ""), ("run", 1.0), quantities=wanted
    )
    assert {one.quantity for one in reading.series} <= set(wanted)


# -- the driver's own samples ------------------------------------------------------------------------------------------


def test_the_ring_buffer_has_each_sample_once_with_its_own_time(tmp_path: Path, library: Path) -> None:
    shown = gpu(0, "ring utilization 0.1666 100", "step utilization 0=0 2=100 4=0")
    first, second = readings(tmp_path, library, shown, ("run", 3.5), ("run", 3.5))
    times = at_s(only(first, Quantity.UTILIZATION)) + at_s(only(second, Quantity.UTILIZATION))
    assert times == pytest.approx([round(0.1666 * tick, 4) for tick in range(1, 43)], abs=1e-4)
    values = [*only(first, Quantity.UTILIZATION).values, *only(second, Quantity.UTILIZATION).values]
    assert sum(values) * 0.1666 == pytest.approx(2.0, abs=0.01)


def test_fast_samples_are_joined_without_a_change_of_their_integral(tmp_path: Path, library: Path) -> None:
    shown = gpu(0, "ring power 0.02 120", "step power 0=100 1.33=700 2.71=50")
    reading, _ = readings(tmp_path, library, shown, ("run", 5.0), ("run", 0.0))
    power = only(reading, Quantity.POWER)
    steps = [after - before for before, after in zip([0.0, *at_s(power)], at_s(power), strict=False)]
    assert steps == pytest.approx([0.1] * 50, abs=1e-4)
    joules = sum(step * value for step, value in zip(steps, power.values, strict=True))
    assert joules == pytest.approx(100 * 1.33 + 700 * 1.38 + 50 * 2.29, rel=1e-3)


def test_times_that_count_from_the_start_of_the_machine_are_told_as_unix_times(tmp_path: Path, library: Path) -> None:
    lines = f"boot_clock {BOOTED_S}", gpu(0, *RINGS, "process 7 1024 50")
    first, second = readings(tmp_path, library, "\n".join(lines), ("run", 3.0), ("run", 3.0))
    times = at_s(only(first, Quantity.POWER)) + at_s(only(second, Quantity.POWER))
    assert times == pytest.approx([tick / 10 for tick in range(1, 61)], abs=1e-4)
    assert at_s(only(second, Quantity.PROCESS_UTILIZATION)) == [4.0, 5.0, 6.0]


def test_what_the_driver_remembers_of_before_is_not_told(tmp_path: Path, library: Path) -> None:
    _, reading = readings(
        tmp_path, library, "init 9", ("run", 4.5), ("control", gpu(0, *RINGS)), ("run", 3.0), pacing=FAST
    )
    assert at_s(only(reading, Quantity.POWER))[0] > 5.0


def test_a_ring_buffer_shorter_than_the_drain_loses_samples_but_doubles_none(tmp_path: Path, library: Path) -> None:
    (reading,) = readings(tmp_path, library, gpu(0, "ring power 0.1 4"), ("run", 5.0))
    times = at_s(only(reading, Quantity.POWER))
    assert times == sorted(set(times))
    assert 16 <= len(times) <= 24


def test_a_ring_buffer_that_stays_empty_is_replaced_by_polling(tmp_path: Path, library: Path) -> None:
    (reading,) = readings(tmp_path, library, gpu(0, "ring utilization 0.1 0"), ("run", 10.0))
    utilization = only(reading, Quantity.UTILIZATION)
    assert 4.0 <= at_s(utilization)[0] <= 5.0
    assert len(utilization.values) >= 50
    assert reading.absent == ()


def test_without_a_ring_buffer_polling_begins_at_once(tmp_path: Path, library: Path) -> None:
    (reading,) = readings(tmp_path, library, gpu(0), ("run", 1.0))
    assert at_s(only(reading, Quantity.POWER))[0] == 0.0


# -- what a device does not tell ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [3, 13, 4, 2])
def test_what_is_not_supported_is_absent_and_asked_once(code: int, tmp_path: Path, library: Path) -> None:
    shown = gpu(0, f"fail nvmlDeviceGetTotalEnergyConsumption {code} -inf 0.5")
    reading, later = readings(tmp_path, library, shown, ("run", 1.0), ("run", 20.0))
    assert not series(reading, Quantity.ENERGY)
    assert not series(later, Quantity.ENERGY)
    assert [(one.device, one.quantity) for one in later.absent] == [(A, Quantity.ENERGY)]
    assert reading.failures == ()
    assert len(only(later, Quantity.MEMORY_USED).values) == 200


def test_a_symbol_that_the_driver_lacks_is_absent(tmp_path: Path) -> None:
    missing = (
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetSamples",
        "nvmlEventSetCreate",
    )
    (reading,) = readings(tmp_path, nvml_stub.built(missing), gpu(0), ("run", 2.0))
    assert [(one.code, one.quantity) for one in reading.absent] == [("FUNCTION_NOT_FOUND", Quantity.ENERGY)]
    assert set(only(reading, Quantity.POWER).values) == {100.0}


@pytest.mark.parametrize(
    ("missing", "quantity"),
    [
        ("nvmlDeviceGetTemperature", Quantity.TEMPERATURE),
        ("nvmlDeviceGetCurrentClocksEventReasons", Quantity.THROTTLED),
    ],
)
def test_a_function_that_was_renamed_is_found_by_its_other_name(
    missing: str, quantity: Quantity, tmp_path: Path
) -> None:
    (reading,) = readings(tmp_path, nvml_stub.built((missing,)), gpu(0), ("run", 2.0))
    assert reading.absent == ()
    assert series(reading, quantity)


def test_the_blanks_of_the_driver_are_no_values(tmp_path: Path, library: Path) -> None:
    shown = gpu(
        0,
        "step power 0=4294967.295",
        "step energy_mj 0=9223372036854775794",
        "step utilization 0=4294967295",
        "step clock_sm 0=4294967295",
        "step temperature 0=2147483632",
        "process 7 18446744073709551615 4294967295",
    )
    (reading,) = readings(tmp_path, library, shown, ("run", 3.0))
    blank = {
        Quantity.POWER,
        Quantity.ENERGY,
        Quantity.UTILIZATION,
        Quantity.PROCESS_MEMORY,
        Quantity.PROCESS_UTILIZATION,
    }
    assert not blank & {one.quantity for one in reading.series}
    assert not series(reading, Quantity.CLOCK, domain="sm")
    assert not series(reading, Quantity.TEMPERATURE, sensor="gpu")
    assert series(reading, Quantity.MEMORY_USED)


def test_no_process_is_nothing_to_tell(tmp_path: Path, library: Path) -> None:
    reading, later = readings(tmp_path, library, gpu(0, "process 7 1024 50 12 15"), ("run", 10.0), ("run", 10.0))
    assert not series(reading, Quantity.PROCESS_MEMORY)
    assert (reading.failures, reading.absent) == ((), ())
    assert at_s(only(later, Quantity.PROCESS_UTILIZATION, pid="7")) == [12.0, 13.0, 14.0]


@pytest.mark.parametrize("code", [10, 999, 27, 21])
def test_what_passes_leaves_a_gap_and_comes_back(code: int, tmp_path: Path, library: Path) -> None:
    shown = gpu(0, f"fail nvmlDeviceGetTotalEnergyConsumption {code} 2 4")
    (reading,) = readings(tmp_path, library, shown, ("run", 10.0), pacing=FAST)
    times = at_s(only(reading, Quantity.ENERGY))
    assert not [each for each in times if 2 <= each < 4]
    assert [each for each in times if each < 2]
    assert [each for each in times if each >= 6]
    assert (reading.failures, reading.absent) == ((), ())


# -- counters ----------------------------------------------------------------------------------------------------------


def test_a_counter_that_falls_began_anew(tmp_path: Path, library: Path) -> None:
    (reading,) = readings(tmp_path, library, gpu(0, "step energy_reset 4.05=1"), ("run", 8.0))
    before, after = series(reading, Quantity.ENERGY)
    assert before.values[-1] == pytest.approx(400.0)
    assert at_s(before)[-1] == 4.0
    assert after.values[0] == pytest.approx(5.0)
    assert after.started_unix_nano == before.times_unix_nano[-1]
    assert before.started_unix_nano < before.times_unix_nano[0]


# -- a device in trouble -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "name"), [(15, "GPU_IS_LOST"), (16, "RESET_REQUIRED")])
def test_a_lost_gpu_leaves_the_others(code: int, name: str, tmp_path: Path, library: Path) -> None:
    shown = "\n".join((gpu(0, f"fail * {code} 3 inf"), gpu(1)))
    _, lost, still = readings(tmp_path, library, shown, ("run", 2.95), ("run", 3.0), ("run", 10.0), pacing=FAST)
    assert [(one.uuid, one.failed) for one in lost.devices] == [(A, True), (B, False)]
    assert codes(lost.failures) == [(name, A)]
    assert lost.available
    assert not series(lost, Quantity.ENERGY)
    assert len(only(lost, Quantity.ENERGY, B).values) == 30
    assert {one.uuid: one.failed for one in still.devices} == {A: True, B: False}
    assert len({one.model for one in still.devices}) == 1
    assert len(only(still, Quantity.ENERGY, B).values) >= 99
    assert only(still, Quantity.POWER, B).values


def test_a_lost_gpu_that_comes_back_is_sampled_again(tmp_path: Path, library: Path) -> None:
    shown = "\n".join((gpu(0, "fail nvmlDeviceGetMemoryInfo 15 3 6"), gpu(1, *RINGS)))
    reading, later = readings(tmp_path, library, shown, ("run", 4.0), ("run", 8.0), pacing=FAST)
    assert [one.failed for one in reading.devices] == [True, False]
    assert [one.failed for one in later.devices] == [False, False]
    assert later.failures == ()
    assert at_s(only(later, Quantity.ENERGY))[0] >= 8.0
    power = at_s(only(reading, Quantity.POWER, B)) + at_s(only(later, Quantity.POWER, B))
    assert power == pytest.approx([tick / 10 for tick in range(1, len(power) + 1)], abs=1e-3)


def test_a_gpu_that_is_lost_from_the_start_is_named_by_its_index(tmp_path: Path, library: Path) -> None:
    shown = "\n".join((gpu(0, "fail * 15"), gpu(1)))
    (reading,) = readings(tmp_path, library, shown, ("run", 1.0))
    assert codes(reading.failures) == [("GPU_IS_LOST", "index 0")]
    assert [one.uuid for one in reading.devices] == [B]


def test_a_gpu_that_is_not_shown_any_more_has_failed(tmp_path: Path, library: Path) -> None:
    both, one = "\n".join((gpu(0), gpu(1, "fail * 15 2 inf"))), gpu(0)
    _, lost, gone = readings(
        tmp_path, library, both, ("run", 1.0), ("run", 2.0), ("control", one), ("run", 6.0), pacing=FAST
    )
    assert codes(lost.failures) == [("GPU_IS_LOST", B)]
    assert codes(gone.failures) == [("GPU_NOT_FOUND", B)]
    assert {each.uuid: each.failed for each in gone.devices} == {A: False, B: True}


def test_critical_errors_are_told_by_their_xid(tmp_path: Path, library: Path) -> None:
    shown = "\n".join((gpu(0), gpu(1, "step xid 2.5=31 2.6=43")))
    (reading,) = readings(tmp_path, library, shown, ("run", 5.0))
    assert only(reading, Quantity.XID, B).values == [31, 43]
    assert not series(reading, Quantity.XID, A)


# -- no library --------------------------------------------------------------------------------------------------------


def test_without_the_library_it_runs_on_and_says_why(tmp_path: Path) -> None:
    (reading,) = readings(tmp_path, None, gpu(0), ("run", 30.0))
    assert codes(reading.failures) == [("LIBRARY_NOT_FOUND", "")]
    assert (reading.available, reading.devices, reading.series) == (False, (), ())


@pytest.mark.parametrize(
    ("code", "name"), [(9, "DRIVER_NOT_LOADED"), (18, "LIB_RM_VERSION_MISMATCH"), (999, "UNKNOWN")]
)
def test_a_driver_that_cannot_be_opened_is_tried_again_slowly(
    code: int, name: str, tmp_path: Path, library: Path
) -> None:
    orders: tuple[tuple[str, Any], ...] = (("run", 3.0), ("control", gpu(0)), ("run", 1.0), ("run", 2.0))
    early, waiting, later = readings(tmp_path, library, f"init {code}\n{gpu(0)}", *orders, pacing=FAST)
    assert codes(early.failures) == [(name, "")]
    assert early.failures[0].reason
    assert not waiting.available
    assert later.available
    assert at_s(only(later, Quantity.ENERGY))[0] == 5.0


@pytest.mark.parametrize("code", [1, 9, 18])
def test_a_driver_that_goes_away_takes_all_devices_and_brings_them_back(
    code: int, tmp_path: Path, library: Path
) -> None:
    shown = "\n".join((f"fail * {code} 3 6", gpu(0), gpu(1)))
    reading, away, back = readings(tmp_path, library, shown, ("run", 2.9), ("run", 3.0), ("run", 5.0), pacing=FAST)
    assert len(reading.devices) == 2
    assert (away.available, away.devices) == (False, ())
    assert [one.failed for one in back.devices] == [False, False]
    assert at_s(only(back, Quantity.ENERGY, B))[0] == 8.0


# -- instances ---------------------------------------------------------------------------------------------------------


def test_instances_have_their_own_memory_and_processes_and_their_gpu_the_rest(tmp_path: Path, library: Path) -> None:
    shown = gpu(
        0,
        "instance MIG-aaaaaaaa-0000-0000-0000-000000000000 1 0",
        "name NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "memory_total 42949672960",
        "step memory_used 0=1000",
        "process 11 500 0",
        "instance MIG-bbbbbbbb-0000-0000-0000-000000000000 2 0",
        "memory_total 21474836480",
        "step memory_used 0=2000",
        "step power 0=999",
    )
    (reading,) = readings(tmp_path, library, shown, ("run", 1.0))
    found = {one.uuid: one for one in reading.devices}
    a, b = "MIG-aaaaaaaa-0000-0000-0000-000000000000", "MIG-bbbbbbbb-0000-0000-0000-000000000000"
    assert (found[a].parent, found[a].mig_id, found[b].mig_id) == (A, "1/0", "2/0")
    assert found[a].memory_limit_bytes == 40 * 2**30
    assert set(only(reading, Quantity.MEMORY_USED, a).values) == {1000}
    assert set(only(reading, Quantity.PROCESS_MEMORY, a, pid="11").values) == {500}
    assert {one.quantity for one in reading.series if one.device == b} == {Quantity.MEMORY_USED}
    assert only(reading, Quantity.POWER, A).values
    assert [(one.device, one.quantity) for one in reading.absent] == [
        (A, Quantity.UTILIZATION),
        (A, Quantity.MEMORY_UTILIZATION),
    ]


def test_instances_come_and_go(tmp_path: Path, library: Path) -> None:
    split = gpu(
        0, "instance MIG-aaaaaaaa-0000-0000-0000-000000000000 1 0", "memory_total 1000", "step memory_used 0=10"
    )
    whole, parts, again = readings(
        tmp_path,
        library,
        gpu(0),
        ("run", 1.0),
        ("control", split),
        ("run", 6.0),
        ("control", gpu(0)),
        ("run", 6.0),
        pacing=FAST,
    )
    assert [len(one.devices) for one in (whole, parts, again)] == [1, 2, 1]
    assert again.failures == ()
