"""An OpenTelemetry gateway for platforms that generate images and video on GPUs."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
