"""Reads all GPUs of this machine at their pace and keeps the samples until they are taken.

`poll` does what is due and says when it wants to be called again; it starts no thread and never waits, but for a driver
that makes it wait. It never raises for anything that NVML does:

| what happens | what follows |
| --- | --- |
| no library, no driver, driver of another version | `failures` says so; opened again after `retry_s` |
| a GPU is lost or needs a reset | this device is `failed`, the others go on; all are opened again after `retry_s` |
| not supported, no such function, no permission | the quantity is `absent` for this device from then on |
| nothing new, no data yet | nothing |
| anything else | no value this time; the question is asked again later and later, `retry_s` at most |
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from otel_pipeline.nvml import probes
from otel_pipeline.nvml.codes import NO_MODULE, Meaning, meaning_of, name_of, reason_of
from otel_pipeline.nvml.devices import Shown, shown
from otel_pipeline.nvml.pacing import SECOND_NS, Clock, Pacing
from otel_pipeline.nvml.probes import Drain, Pace, Poll, Timed
from otel_pipeline.nvml.samples import (
    COUNTERS,
    SAMPLES_MAX,
    SERIES_MAX,
    Attributes,
    Device,
    Failure,
    Quantity,
    Reading,
    Series,
)
from otel_pipeline.nvml.xids import XidEvents

SILENT_MAX: Final = 5
"""Drains without a sample after which the value is polled instead: some drivers never fill their ring buffer."""
NEVER_NS: Final = 2**63
AHEAD_US: Final = 5_000_000
"""A sample of the driver's that is further in the future than this has no time that we know."""
UNIX_US_MIN: Final = 10**15
"""A time of a sample below it, the year 2001, counts from the start of the machine."""
FIRST_DELAY_S: Final = 1.0
"""After the first failure of a question that may pass; doubled with each further one."""


def load() -> Any:
    """The module pynvml."""
    return importlib.import_module("pynvml")


@dataclass(slots=True)
class _Question:
    """A poll or a drain of one device, and how it went."""

    ask: Poll | Drain
    begun_us: int = 0
    since_us: int | None = None
    """The last sample that is known, by the driver's clock; None: it has told none yet."""
    silent: int = 0
    failures: int = 0
    not_before_ns: int = 0


@dataclass(slots=True)
class _Subject:
    """A device and what is asked about it."""

    device: Device
    handle: Any
    paces: dict[Pace, list[_Question]] = field(default_factory=dict)
    drains: list[_Question] = field(default_factory=list)
    absent: dict[tuple[Quantity, str], Failure] = field(default_factory=dict)


class Sampler:
    """For one thread. `module` imports pynvml; `takes` says whether a GPU, by its UUID, is to be read."""

    def __init__(
        self,
        pacing: Pacing | None = None,
        *,
        quantities: frozenset[Quantity] = frozenset(Quantity),
        module: Callable[[], Any] = load,
        clock: Clock | None = None,
        takes: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._pacing = pacing or Pacing()
        self._quantities = quantities
        self._module = module
        self._clock = clock or Clock()
        self._takes = takes
        self._nvml: Any = None
        self._subjects: dict[str, _Subject] = {}
        self._known: dict[str, Device] = {}
        """GPUs as they were when they answered, without instances."""
        self._failures: dict[str, Failure] = {}
        """By device; empty for the library."""
        self._series: dict[tuple[str, Quantity, Attributes], Series] = {}
        self._kept = 0
        """Samples in them."""
        self._cut: list[Series] = []
        """Series of counters that began anew since."""
        self._counters: dict[tuple[str, Quantity, Attributes], tuple[float, int, int]] = {}
        """The last value, its time, and since when it counts."""
        self._seen_us: dict[tuple[str, Quantity], int | None] = {}
        """Up to when the driver's own samples were fetched, also when the library is opened again."""
        self._counting_since_ns = self._clock.unix_ns() - self._clock.boot_ns()
        self._xids: XidEvents | None = None
        self._due = dict.fromkeys(Pace, 0)
        self._open_at_ns = self._rescan_at_ns = 0

    # -- for the caller ------------------------------------------------------------------------------------------------

    def poll(self) -> float:
        """Do what is due; returns after how many seconds something will be."""
        now_ns = self._clock.steady_ns()
        if now_ns >= self._open_at_ns:
            self._reopen(now_ns)
        if self._nvml is not None and now_ns >= self._rescan_at_ns:
            self._rescan(now_ns)
        for pace in Pace:
            if self._nvml is not None and now_ns >= self._due[pace]:
                self._round(pace, now_ns)
                self._due[pace] = _next(self._due[pace], self._pacing.ns(pace), now_ns)
        return max(0.0, (self._next_ns() - self._clock.steady_ns()) / SECOND_NS)

    def take(self) -> Reading:
        """What was sampled since the last call."""
        series = (*self._cut, *(one for one in self._series.values() if one.values))
        self._cut, self._series, self._kept = [], {}, 0
        subjects = self._subjects.values()
        return Reading(
            self._clock.unix_ns(),
            tuple(one.device for one in subjects) if self._nvml is not None else (),
            series,
            tuple(self._failures.values()),
            tuple(failure for one in subjects for failure in one.absent.values()),
        )

    def finish(self) -> Reading:
        """The last reading: everything is asked once more, and the library is given up."""
        if self._nvml is not None:
            self._due = dict.fromkeys(Pace, self._clock.steady_ns())
            self.poll()
        reading = self.take()
        self.close()
        return reading

    def close(self) -> None:
        """Give up the library. Polling opens it again."""
        if self._xids is not None:
            self._xids.close()
            self._xids = None
        if self._nvml is not None:
            try:
                self._nvml.nvmlShutdown()
            except Exception as error:  # noqa: BLE001  it is given up in any case
                self._failures.setdefault("", Failure(name_of(error), reason_of(error)))
            self._nvml = None
        self._open_at_ns = self._clock.steady_ns()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _reopen(self, now_ns: int) -> None:
        """Open the library, with all devices as they are now. Those that were there and are not have failed."""
        self.close()
        self._failures.clear()
        self._subjects.clear()
        self._open_at_ns = NEVER_NS
        try:
            nvml = self._module()
            nvml.nvmlInit()
        except Exception as error:  # noqa: BLE001  whatever it is, there is nothing to sample
            self._library_failed(error, now_ns)
            return
        self._nvml = nvml
        if Quantity.XID in self._quantities:
            self._xids = XidEvents(nvml)
        self._due = dict.fromkeys(Pace, now_ns)
        self._rescan(now_ns)
        for uuid, device in self._known.items():
            if self._nvml is not None and uuid not in self._subjects and self._takes(uuid):
                self._subjects[uuid] = _Subject(device, None)
                gone = Failure("GPU_NOT_FOUND", "the GPU was there and is not shown any more", uuid)
                self._device_failed(uuid, gone, now_ns)

    def _rescan(self, now_ns: int) -> None:
        """Look for devices that came or went."""
        self._rescan_at_ns = now_ns + int(self._pacing.rescan_s * SECOND_NS)
        try:
            known = {device.index: uuid for uuid, device in self._known.items()}
            found, failures = shown(self._nvml, self._takes, known)
        except Exception as error:  # noqa: BLE001  it cannot even count them
            self._library_failed(error, now_ns)
            return
        present = {one.device.uuid for one in found}
        self._known |= {one.device.uuid: one.device for one in found if not one.device.parent and not one.device.failed}
        for uuid, subject in list(self._subjects.items()):
            if uuid not in present and (subject.device.parent or not self._takes(uuid)):
                del self._subjects[uuid]
        for one in found:
            if one.device.uuid not in self._subjects:
                self._subjects[one.device.uuid] = self._subject(one)
        for failure in failures:
            self._device_failed(failure.device, failure, now_ns)

    def _subject(self, one: Shown) -> _Subject:
        if one.device.failed:
            return _Subject(replace(self._known.get(one.device.uuid, one.device), failed=True), None)
        subject = _Subject(one.device, one.handle, {pace: [] for pace in Pace})
        is_instance = bool(one.device.parent)
        for poll in probes.POLLS:
            if self._quantities.intersection(poll.quantities) and (poll.of_instances or not is_instance):
                subject.paces[poll.pace].append(_Question(poll))
        if is_instance:
            return subject
        now_us = self._clock.unix_ns() // 1000
        for drain in probes.DRAINS:
            if drain.quantity in self._quantities:
                seen_us = self._seen_us.get((one.device.uuid, drain.quantity))
                subject.drains.append(_Question(drain, now_us, seen_us))
        if self._xids is not None:
            self._xids.watch(one.handle, one.device.uuid)
        return subject

    # -- asking --------------------------------------------------------------------------------------------------------

    def _round(self, pace: Pace, now_ns: int) -> None:
        """Ask each device what is asked at this pace."""
        for subject in list(self._subjects.values()):
            if pace is Pace.SLOW:
                for question in tuple(subject.drains):
                    self._drain(subject, question, now_ns)
            for question in tuple(subject.paces.get(pace, ())):
                self._poll(subject, question, now_ns)
        if pace is Pace.SLOW and self._xids is not None:
            for uuid, code in self._xids.read():
                self._add(uuid, Quantity.XID, (), self._clock.unix_ns(), code)

    def _poll(self, subject: _Subject, question: _Question, now_ns: int) -> None:
        poll = question.ask
        if not isinstance(poll, Poll) or not self._answers(subject) or now_ns < question.not_before_ns:
            return
        try:
            values = poll.read(self._nvml, subject.handle)
        except Exception as error:  # noqa: BLE001  sorted by what it means
            if self._failed(subject, question, poll.quantities[0], error, now_ns):
                subject.paces[poll.pace].remove(question)
            return
        question.failures = 0
        time_ns = self._clock.unix_ns()
        for quantity, attributes, value in values:
            self._add(subject.device.uuid, quantity, attributes, time_ns, value)

    def _drain(self, subject: _Subject, question: _Question, now_ns: int) -> None:
        drain = question.ask
        if not isinstance(drain, Drain) or not self._answers(subject) or now_ns < question.not_before_ns:
            return
        samples: Timed = []
        try:
            samples = drain.read(self._nvml, subject.handle, question.since_us or 0)
        except Exception as error:  # noqa: BLE001  sorted by what it means
            if meaning_of(error) is not Meaning.NOTHING_NEW:
                never = self._failed(subject, question, drain.quantity, error, now_ns, silently=bool(drain.instead))
                if never or (drain.instead is not None and question.failures >= SILENT_MAX):
                    self._poll_instead(subject, question, now_ns)
                return
        question.failures = 0
        question.silent = (
            0 if self._keep(subject, question, drain, samples) or not drain.instead else question.silent + 1
        )
        if question.silent >= SILENT_MAX:
            self._poll_instead(subject, question, now_ns)

    def _keep(self, subject: _Subject, question: _Question, drain: Drain, samples: Timed) -> bool:
        """Keep the driver's own samples since the last, or since it was asked first; whether there were any.

        Their times are Unix times with some drivers, with others they count from the start of the machine.
        """
        if not samples:
            return False
        ahead_us = 0 if samples[-1][0] >= UNIX_US_MIN else self._clock.ahead_of_boot_us()
        since_us = question.begun_us - ahead_us if question.since_us is None else question.since_us
        latest_us = self._clock.unix_ns() // 1000 + AHEAD_US - ahead_us
        usable = [
            each for each in samples if since_us < each[0] <= latest_us and probes.plausible(drain.quantity, each[2])
        ]
        kept = probes.joined(usable, since_us, self._pacing.ns(Pace.FAST) // 1000) if drain.instead else usable
        for time_us, attributes, value in kept:
            self._add(subject.device.uuid, drain.quantity, attributes, (time_us + ahead_us) * 1000, value)
        question.since_us = self._seen_us[subject.device.uuid, drain.quantity] = kept[-1][0] if kept else since_us
        return bool(usable)

    def _poll_instead(self, subject: _Subject, question: _Question, now_ns: int) -> None:
        """The driver remembers nothing: ask for the value of now, beginning now."""
        subject.drains.remove(question)
        if isinstance(question.ask, Drain) and question.ask.instead is not None:
            instead = _Question(question.ask.instead)
            subject.paces[question.ask.instead.pace].append(instead)
            self._poll(subject, instead, now_ns)

    def _answers(self, subject: _Subject) -> bool:
        """Whether to ask: what failed a moment ago, in the same round, is not asked on."""
        return self._nvml is not None and not subject.device.failed

    # -- what is told --------------------------------------------------------------------------------------------------

    def _add(self, uuid: str, quantity: Quantity, attributes: Attributes, time_ns: int, value: float) -> None:
        if quantity not in self._quantities or not probes.plausible(quantity, value):
            return
        key = (uuid, quantity, attributes)
        series = self._series.get(key)
        if quantity in COUNTERS:
            since_ns = self._count(key, value, time_ns)
            if series is not None and series.started_unix_nano != since_ns:
                self._cut.append(series)
                series = None
        else:
            since_ns = 0
        if series is None:
            if len(self._series) + len(self._cut) >= SERIES_MAX:
                return
            series = self._series[key] = Series(uuid, quantity, attributes, since_ns)
        if self._kept < SAMPLES_MAX:
            self._kept += 1
            series.add(time_ns, value)

    def _count(self, key: tuple[str, Quantity, Attributes], value: float, time_ns: int) -> int:
        """Since when a counter counts: one that falls began anew, at some time after its last value."""
        last = self._counters.get(key)
        since_ns = self._counting_since_ns if last is None else last[2]
        if last is not None and value < last[0]:
            since_ns = last[1]
        self._counters[key] = (value, time_ns, since_ns)
        return since_ns

    def _failed(
        self,
        subject: _Subject,
        question: _Question,
        quantity: Quantity,
        error: Exception,
        now_ns: int,
        *,
        silently: bool = False,
    ) -> bool:
        """What follows from an error; True: never ask that again. `silently`: something else is asked instead."""
        meaning = meaning_of(error)
        if meaning is Meaning.LIBRARY:
            self._library_failed(error, now_ns)
        elif meaning is Meaning.DEVICE:
            uuid = subject.device.uuid
            self._device_failed(uuid, Failure(name_of(error), reason_of(error), uuid), now_ns)
        elif meaning is Meaning.ABSENT:
            if not silently:
                told = Failure(name_of(error), reason_of(error), subject.device.uuid, quantity)
                subject.absent[quantity, told.code] = told
            return True
        elif meaning is Meaning.PASSING:
            question.failures += 1
            delay_s = min(FIRST_DELAY_S * 2 ** min(question.failures - 1, 16), self._pacing.retry_s)
            question.not_before_ns = now_ns + int(delay_s * SECOND_NS)
        return False

    def _device_failed(self, name: str, failure: Failure, now_ns: int) -> None:
        """This device is out; the others go on. The whole library is opened again later: handles may have changed."""
        self._failures[name] = failure
        for subject in self._subjects.values():
            if name in (subject.device.uuid, subject.device.parent):
                subject.device = replace(subject.device, failed=True)
        self._open_at_ns = min(self._open_at_ns, now_ns + int(self._pacing.retry_s * SECOND_NS))

    def _library_failed(self, error: Exception, now_ns: int) -> None:
        code = NO_MODULE if isinstance(error, ImportError) else name_of(error)
        subjects = self._subjects
        self.close()
        self._failures[""] = Failure(code, reason_of(error))
        self._subjects = subjects
        self._open_at_ns = now_ns + int(self._pacing.retry_s * SECOND_NS)

    def _next_ns(self) -> int:
        if self._nvml is None:
            return self._open_at_ns
        look_ns = min(self._rescan_at_ns, self._open_at_ns)
        return min(*self._due.values(), look_ns) if any(map(self._answers, self._subjects.values())) else look_ns


def _next(due_ns: int, period_ns: int, now_ns: int) -> int:
    """The next time on the grid; what was missed is not made up for."""
    return due_ns + max(1, -(-(now_ns - due_ns + 1) // period_ns)) * period_ns
