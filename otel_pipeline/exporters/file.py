"""The `file` exporter: OTLP JSON lines, one request a line, as the Collector's file exporter writes them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, ClassVar, Final, Literal

from pydantic import Field

from otel_pipeline.contracts import Settings
from otel_pipeline.errors import Unavailable
from otel_pipeline.limits import EXPORT_BYTES_MAX
from otel_pipeline.wire import otlp_json

if TYPE_CHECKING:
    from otel_pipeline.contracts import Context
    from otel_pipeline.wire.signal import Signal

MIB: Final = 1024 * 1024


class Rotation(Settings):
    """Start a new file when this one is large; older ones are named FILE.1 (the newest), FILE.2 ..."""

    max_megabytes: Annotated[int, Field(ge=1)] = 100
    """Size at which a new file is begun."""
    max_backups: Annotated[int, Field(ge=1, le=1000)] = 100
    """How many older files are kept."""

    without_effect: ClassVar[dict[str, str]] = {
        "max_days": "files are kept by number",
        "localtime": "names carry numbers, no times",
    }


class Config(Settings):
    """Writes telemetry to a file."""

    path: str
    """The file; its folder must exist."""
    format: Literal["json", "proto"] = "json"
    """json: a line a request; proto: each request behind its length (4 bytes, big endian)."""
    append: bool = False
    """Continue an existing file instead of beginning it anew when the gateway starts."""
    compression: Literal["", "gzip"] = ""
    """gzip: each request is a gzip member of its own."""
    rotation: Rotation | None = None
    """Begin new files by size."""

    without_effect: ClassVar[dict[str, str]] = {
        "flush_interval": "each request is flushed before it counts as delivered",
        "create_directory": "the folder must exist",
    }


class FileExporter:
    """Appends requests to one file; each is flushed before it counts as delivered."""

    Config = Config

    def __init__(self, config: Config, context: Context) -> None:
        self.request_bytes_max: Final = EXPORT_BYTES_MAX
        self._config = config
        self._path = Path(config.path)
        self._file: BinaryIO = self._path.open("ab" if config.append or config.rotation else "wb")

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Write one request. A full disk or a lost folder is for later."""
        if self._config.format == "json":
            record = otlp_json.encode(signal, request).encode() + b"\n"
        else:
            record = len(request).to_bytes(4, "big") + request
        if self._config.compression == "gzip":
            record = gzip.compress(record, 1)
        try:
            self._rotate(len(record))
            before = self._file.tell()
            try:
                self._file.write(record)
                self._file.flush()
            except OSError:
                self._file.truncate(before)  # no half record in front of the next try
                raise
        except OSError as error:
            raise Unavailable(f"{self._path}: {error}") from error
        return 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotate(self, size: int) -> None:
        rotation = self._config.rotation
        if rotation is None or self._file.tell() + size <= rotation.max_megabytes * MIB or not self._file.tell():
            return
        self._file.close()
        for number in range(rotation.max_backups, 0, -1):
            older = self._backup(number)
            if older.exists() and number == rotation.max_backups:
                older.unlink()
            elif older.exists():
                older.rename(self._backup(number + 1))
        self._path.rename(self._backup(1))
        self._file = self._path.open("ab")

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
