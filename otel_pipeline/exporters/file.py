"""The `file` exporter: OTLP JSON lines, one request a line, as the Collector's file exporter writes them."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import Field

from otel_pipeline.contracts import Settings
from otel_pipeline.errors import Refused, Unavailable, WireError
from otel_pipeline.limits import EXPORT_BYTES_MAX
from otel_pipeline.wire import otlp_json

if TYPE_CHECKING:
    from io import FileIO

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


class FileExporter:
    """Appends requests to one file; each is handed to the system before it counts as delivered."""

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

    def __init__(self, config: Config, context: Context) -> None:  # noqa: ARG002 - every component gets a context
        self.request_bytes_max: Final = EXPORT_BYTES_MAX
        self._config = config
        self._path = Path(config.path)
        if not (config.append or config.rotation):
            self._path.open("wb").close()
        self._file = self._open()

    def deliver(self, signal: Signal, request: bytes) -> int:
        """Write one request. A full disk or a lost folder is for later."""
        record = self._record(signal, request)
        try:
            self._follow_the_path()
            self._rotate(len(record))
            self._write(record)
        except OSError as error:
            raise Unavailable(f"{self._path}: {error}") from error
        return 0

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _record(self, signal: Signal, request: bytes) -> bytes:
        if self._config.format == "json":
            try:
                record = otlp_json.encode(signal, request).encode() + b"\n"
            except WireError as error:
                raise Refused(f"cannot be written as JSON: {error}") from error
        else:
            record = len(request).to_bytes(4, "big") + request
        return gzip.compress(record, 1) if self._config.compression == "gzip" else record

    def _open(self) -> FileIO:
        """Every write goes to the end, and nothing stays in a buffer of ours when one fails."""
        return self._path.open("ab", buffering=0)

    def _write(self, record: bytes) -> None:
        before = self._size()
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # a full disk takes a part, then raises
        except OSError:
            self._file.truncate(before)  # no half record in front of the next try
            raise

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _follow_the_path(self) -> None:
        """If somebody moved or removed the file, begin a new one: what is written to a removed file is gone."""
        try:
            if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                return
        except FileNotFoundError:
            pass
        fresh = self._open()
        self._file.close()
        self._file = fresh

    def _rotate(self, size: int) -> None:
        rotation = self._config.rotation
        present = self._size()
        if rotation is None or not present or present + size <= rotation.max_megabytes * MIB:
            return
        self._backup(rotation.max_backups).unlink(missing_ok=True)
        for number in range(rotation.max_backups - 1, 0, -1):
            older = self._backup(number)
            if older.exists():
                older.rename(self._backup(number + 1))
        self._path.rename(self._backup(1))
        self._follow_the_path()

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
