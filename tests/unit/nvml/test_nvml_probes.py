"""What the sampler makes of answers, without a library: joined samples, blanks, errors, old versions of pynvml."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_pipeline.nvml import probes, samples
from otel_pipeline.nvml.codes import CODES, Meaning, code_of, meaning_of, name_of, reason_of
from otel_pipeline.nvml.devices import shown, text
from otel_pipeline.nvml.pacing import Clock, Pacing
from otel_pipeline.nvml.runner import Runner
from otel_pipeline.nvml.sampler import Sampler
from otel_pipeline.nvml.samples import Device, Failure, Quantity, Reading, Series

NOW_NS: Final = 1_790_000_000 * 10**9
A: Final = "GPU-a"


class NVMLError(Exception):
    """As pynvml's: the number is an attribute."""

    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


class Nvml:
    """A pynvml with one GPU; what it has not raises AttributeError, as in an old version."""

    NVMLError = NVMLError

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: b"450.80",
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda _: A.encode(),
            "nvmlDeviceGetName": lambda _: b"Tesla V100",
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=1000, used=10),
            "nvmlDeviceGetSerial": raising(3),
            "nvmlDeviceGetMigMode": raising(13),
            **functions,
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self.functions:
            raise AttributeError(name)
        return self.functions[name]


def raising(code: int) -> Callable[..., Any]:
    def function(*_: Any) -> Any:
        raise NVMLError(code)

    return function


def read(nvml: Nvml, *, seconds: float = 1.0, takes: Callable[[str], bool] = lambda _: True) -> Reading:
    """What a sampler tells that polled for so long."""
    at_ns = [NOW_NS]
    sampler = Sampler(Pacing(), module=lambda: nvml, clock=Clock(lambda: at_ns[0], lambda: at_ns[0]), takes=takes)
    while at_ns[0] <= NOW_NS + seconds * 1e9:
        at_ns[0] += max(1_000_000, int(sampler.poll() * 1e9))
    return sampler.take()


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "meaning"),
    [
        ((3, 13, 2, 4), Meaning.ABSENT),
        ((15, 16, 28), Meaning.DEVICE),
        ((9, 12, 18, 1), Meaning.LIBRARY),
        ((6, 21, 0), Meaning.NOTHING_NEW),
        ((10, 27, 999, 7, 123), Meaning.PASSING),
    ],
)
def test_a_code_means_what_the_policy_says(codes: tuple[int, ...], meaning: Meaning) -> None:
    assert {meaning_of(NVMLError(code)) for code in codes} == {meaning}


def test_a_code_has_its_name_and_a_reason() -> None:
    assert {name_of(NVMLError(code)) for code in CODES} == set(CODES.values())
    assert name_of(NVMLError(4711)) == "CODE_4711"
    assert reason_of(NVMLError(18)).startswith("the driver was upgraded")
    assert reason_of(NVMLError(4711)) == "code 4711"


def test_an_error_that_is_not_nvmls_has_no_code() -> None:
    error = AttributeError("nvmlDeviceGetSamples")
    assert (code_of(error), name_of(error), meaning_of(error)) == (None, "AttributeError", Meaning.ABSENT)


# -- an old pynvml -----------------------------------------------------------------------------------------------------


def test_text_may_come_as_bytes() -> None:
    assert [text(each) for each in (b"a\xff", "b", None)] == ["a\ufffd", "b", ""]
    (device,) = read(Nvml()).devices
    assert (device.uuid, device.model, device.serial, device.driver_version) == (A, "Tesla V100", "", "450.80")


def test_what_pynvml_has_no_function_for_is_absent() -> None:
    reading = read(Nvml())
    assert {one.quantity for one in reading.series} == {Quantity.MEMORY_USED}
    assert Quantity.ENERGY in {one.quantity for one in reading.absent}
    assert reading.failures == ()


def test_a_module_that_cannot_be_imported_is_told() -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("No module named 'pynvml'")

    sampler = Sampler(module=missing)
    assert sampler.poll() > 50
    assert [one.code for one in sampler.take().failures] == ["NO_PYNVML"]


def test_processes_whose_memory_is_not_told_are_left_out() -> None:
    found = [SimpleNamespace(pid=1, usedGpuMemory=None), SimpleNamespace(pid=2, usedGpuMemory=5)]
    reading = read(Nvml(nvmlDeviceGetComputeRunningProcesses=lambda _: found))
    assert [one.attributes for one in reading.series if one.quantity is Quantity.PROCESS_MEMORY] == [(("pid", "2"),)]


def test_of_very_many_processes_the_largest_are_told() -> None:
    found = [SimpleNamespace(pid=each, usedGpuMemory=each) for each in range(1, 500)]
    reading = read(Nvml(nvmlDeviceGetComputeRunningProcesses=lambda _: found), seconds=0.5)
    told = sorted(one.values[0] for one in reading.series if one.quantity is Quantity.PROCESS_MEMORY)
    assert told == list(range(500 - probes.PROCESSES_MAX, 500))


def test_success_raised_as_an_error_is_nothing_to_tell() -> None:
    reading = read(Nvml(nvmlDeviceGetProcessUtilization=raising(0)))
    assert Quantity.PROCESS_UTILIZATION not in {one.quantity for one in reading.absent}


def test_a_sample_from_the_future_is_no_sample() -> None:
    ahead = SimpleNamespace(timeStamp=NOW_NS // 1000 + 3_600_000_000, sampleValue=SimpleNamespace(uiVal=50))
    reading = read(Nvml(nvmlDeviceGetSamples=lambda *_: (1, [ahead])), seconds=2.0)
    assert Quantity.UTILIZATION not in {one.quantity for one in reading.series}


def test_what_is_not_taken_is_not_read_nor_reported() -> None:
    reading = read(Nvml(), takes=lambda _: False)
    assert (reading.devices, reading.series, reading.failures) == ((), (), ())


def test_with_nothing_to_ask_it_sleeps_until_it_looks_again_and_then_begins_at_once() -> None:
    at_ns, ours = [NOW_NS], [False]
    sampler = Sampler(module=Nvml, clock=Clock(lambda: at_ns[0], lambda: at_ns[0]), takes=lambda _: ours[0])
    assert sampler.poll() == pytest.approx(60.0)
    at_ns[0] += 60 * 10**9
    ours[0] = True
    assert sampler.poll() == pytest.approx(0.1)
    assert [one.times_unix_nano for one in sampler.take().series] == [[at_ns[0]]]


def test_a_device_whose_index_has_moved_is_not_taken_for_another() -> None:
    handles = {0: "b", 1: None}

    def by_index(index: int) -> str:
        if handles[index] is None:
            raise NVMLError(15)
        return str(handles[index])

    nvml = Nvml(
        nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=by_index, nvmlDeviceGetUUID=lambda each: f"GPU-{each}"
    )
    found, failures = shown(nvml, lambda _: True, {0: "GPU-a", 1: "GPU-b"})
    assert [(one.device.uuid, one.device.failed) for one in found] == [("GPU-b", False)]
    assert [one.device for one in failures] == ["index 1"]


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        (Quantity.UTILIZATION, 1.01),
        (Quantity.POWER, 4_294_967.295),
        (Quantity.MEMORY_USED, 0x7FFFFFFFFFFFFFF0),
        (Quantity.ENERGY, 0x7FFFFFFFFFFFFFF0 / 1000),
        (Quantity.ERRORS, 2**64 - 1),
        (Quantity.TEMPERATURE, 0x7FFFFFF0),
        (Quantity.CLOCK, 0xFFFFFFFF * 1e6),
    ],
)
def test_a_blank_is_no_value(quantity: Quantity, value: float) -> None:
    assert not probes.plausible(quantity, value)
    assert probes.plausible(quantity, 0)


def test_every_quantity_has_a_bound() -> None:
    assert set(probes.PLAUSIBLE_MAX) == set(Quantity)


@given(
    st.lists(st.tuples(st.integers(1, 400_000), st.floats(0, 1e4)), max_size=60),
    st.integers(10_000, 1_000_000),
)
def test_joining_keeps_the_integral_and_the_order(steps: list[tuple[int, float]], interval_us: int) -> None:
    rows: list[tuple[int, Any, float]] = []
    at_us = 1_000_000
    for step_us, value in steps:
        at_us += step_us
        rows.append((at_us, (), value))
    found = probes.joined(rows, 1_000_000, interval_us)
    times = [row[0] for row in found]
    assert times == sorted(set(times))
    assert set(times) <= {row[0] for row in rows}
    assert all(
        after - before >= interval_us * probes.JOINED_SHARE
        for before, after in zip([1_000_000, *times], times, strict=False)
    )
    end_us = times[-1] if times else 1_000_000
    assert area(found) == pytest.approx(area([row for row in rows if row[0] <= end_us]), rel=1e-9, abs=1e-6)


def area(rows: list[tuple[int, Any, float]]) -> float:
    before_us, total = 1_000_000, 0.0
    for at_us, _, value in rows:
        total += (at_us - before_us) * value
        before_us = at_us
    return total


def test_what_is_left_of_joining_comes_with_the_next() -> None:
    rows: list[tuple[int, Any, float]] = [(20_000 * tick, (), 1.0) for tick in range(1, 8)]
    first = probes.joined(rows, 0, 100_000)
    assert [row[0] for row in first] == [100_000]
    rest = [row for row in [*rows, (160_000, (), 1.0), (180_000, (), 1.0), (200_000, (), 1.0)] if row[0] > 100_000]
    assert [row[0] for row in probes.joined(rest, 100_000, 100_000)] == [200_000]


def test_a_series_that_nobody_takes_loses_its_oldest_half() -> None:
    series = Series(A, Quantity.POWER)
    for index in range(samples.POINTS_MAX + 1):
        series.add(index, float(index))
    assert len(series.values) == len(series.times_unix_nano) == samples.POINTS_MAX // 2 + 1
    assert series.values[-1] == samples.POINTS_MAX


def test_all_series_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.nvml.sampler.SAMPLES_MAX", 7)
    assert sum(len(one.values) for one in read(Nvml(), seconds=5.0).series) == 7


# -- pace --------------------------------------------------------------------------------------------------------------


def test_what_was_missed_is_not_made_up_for() -> None:
    at_ns = [NOW_NS]
    asked = []

    def energy(_: Any) -> int:
        asked.append((at_ns[0] - NOW_NS) / 1e9)
        if len(asked) == 3:
            at_ns[0] += 2_030_000_000  # the driver makes it wait
        return len(asked)

    nvml = Nvml(nvmlDeviceGetTotalEnergyConsumption=energy)
    sampler = Sampler(module=lambda: nvml, clock=Clock(lambda: at_ns[0], lambda: at_ns[0]))
    while at_ns[0] < NOW_NS + 2_500_000_000:
        wait_ns = round(sampler.poll() * 1e9)  # the clock moves within
        at_ns[0] += max(1_000_000, wait_ns)
    assert asked == pytest.approx([0.0, 0.1, 0.2, 2.231, 2.3, 2.4], abs=0.01)


def test_a_question_that_fails_is_asked_less_and_less_often() -> None:
    asked = []

    def energy(_: Any) -> int:
        asked.append(1)
        raise NVMLError(999)

    read(Nvml(nvmlDeviceGetTotalEnergyConsumption=energy), seconds=60.0)
    assert len(asked) == 6  # after 0, 1, 3, 7, 15, 31 s


# -- the thread --------------------------------------------------------------------------------------------------------


class Scripted:
    """A sampler that does what it is told."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing = failing
        self.polls = 0
        self.closed = False

    def poll(self) -> float:
        self.polls += 1
        if self.failing:
            raise RuntimeError("injected")
        return 0.001

    def take(self) -> Reading:
        return Reading(self.polls)

    def finish(self) -> Reading:
        self.closed = True
        return Reading(-1, (Device(A, 0),))


def run(sampler: Any, deliver: Callable[[Reading], None], polls: int) -> Runner:
    reached = threading.Event()
    original = sampler.poll

    def poll() -> float:
        if sampler.polls >= polls:
            reached.set()
        result: float = original()
        return result

    sampler.poll = poll
    runner = Runner(sampler, deliver, 0.001)
    runner.start()
    assert reached.wait(10)
    runner.stop(10)
    return runner


def test_readings_are_delivered_and_the_last_one_at_the_end() -> None:
    delivered: list[Reading] = []
    sampler = Scripted()
    runner = run(sampler, delivered.append, 10)
    assert len(delivered) >= 2
    assert delivered[-1].taken_unix_nano == -1
    assert (sampler.closed, runner.failures) == (True, 0)
    runner.stop(1)


def test_a_sampler_that_raises_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    runner = run(Scripted(failing=True), lambda _: None, 10)
    assert runner.failures >= 9
    assert 0 < len(caplog.records) <= 5


def test_who_takes_the_readings_may_raise() -> None:
    def deliver(_: Reading) -> None:
        raise OSError("injected")

    sampler = Scripted()
    assert run(sampler, deliver, 10).failures >= 2
    assert sampler.closed


def test_a_reading_is_available_unless_the_library_failed() -> None:
    assert Reading(1, failures=(Failure("GPU_IS_LOST", "x", A),)).available
    assert not Reading(1, failures=(Failure("DRIVER_NOT_LOADED", "x"),)).available
