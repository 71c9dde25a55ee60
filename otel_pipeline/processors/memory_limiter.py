"""Settings of `memory_limiter`. There is no such processor here: the gateway refuses at the door."""

from __future__ import annotations

from typing import ClassVar, Final, Self

from pydantic import Field, model_validator

from otel_pipeline.contracts import Settings
from otel_pipeline.settings import Duration

_NO_GO: Final = "it steers the garbage collector of Go"


class MemoryLimiterSettings:
    """From which memory use on the gateway refuses requests, with the advice to come again."""

    class Config(Settings):
        """Needs exactly one of limit_mib and limit_percentage; refusals begin at the limit minus the spike limit."""

        without_effect: ClassVar[dict[str, str]] = {
            "min_gc_interval_when_soft_limited": _NO_GO,
            "min_gc_interval_when_hard_limited": _NO_GO,
            "max_gc_interval_when_soft_limited": _NO_GO,
            "max_gc_interval_when_hard_limited": _NO_GO,
        }

        check_interval: Duration = 1.0
        """How often the memory of the process is measured."""
        limit_mib: int = Field(default=0, ge=0, examples=[512])
        """The hard limit, in MiB of resident memory; 0: not given."""
        spike_limit_mib: int = Field(default=0, ge=0)
        """What may be added between two checks, in MiB; 0: a fifth of the limit."""
        limit_percentage: int = Field(default=0, ge=0, le=100)
        """The hard limit, in percent of the memory of the machine or container; 0: not given."""
        spike_limit_percentage: int = Field(default=0, ge=0, le=100)
        """What may be added between two checks, in percent; 0: a fifth of the limit."""

        @model_validator(mode="after")
        def _has_one_limit(self) -> Self:
            if self.check_interval <= 0:
                raise ValueError("check_interval must be above 0s")
            if bool(self.limit_mib) == bool(self.limit_percentage):
                raise ValueError("needs exactly one of limit_mib and limit_percentage, above 0")
            if self.spike_limit_mib and self.spike_limit_mib >= self.limit_mib:
                raise ValueError("spike_limit_mib must be below limit_mib")
            if self.spike_limit_percentage and self.spike_limit_percentage >= self.limit_percentage:
                raise ValueError("spike_limit_percentage must be below limit_percentage")
            return self
