"""The stand-in of ComfyUI's server as a process of its own, with the hooks in it or without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.comfyui_stub import FOLDER
from tests.support.net import free_endpoint

DEADLINE_S: Final = 20.0


class ComfyUI:
    """A server that runs. `spans` are those that it has printed by its end."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"
        self.output = ""

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> tuple[Any, Mapping[str, str]]:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), dict(headers or {}))  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            text = answer.read()
            return json.loads(text) if text else None, {key.lower(): value for key, value in answer.headers.items()}

    def run(self, prompt: Any, extra: Any = None, headers: Mapping[str, str] | None = None) -> tuple[str, Any]:
        """Posts a prompt and waits for its end; returns its id and its history."""
        body = {"prompt": prompt, "prompt_id": str(uuid.uuid4()), **({"extra_data": extra} if extra else {})}
        answer, told = self.post("/prompt", body, headers)
        assert told.get("x-otel-pipeline-nodes", "none") in {"server", "none"}
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            with urllib.request.urlopen(f"{self.url}/history/{answer['prompt_id']}", timeout=10) as history:  # noqa: S310
                known = json.loads(history.read())
            if known:
                return answer["prompt_id"], {**known[answer["prompt_id"]], "headers": told}
            time.sleep(0.01)
        raise AssertionError("the prompt did not end")

    def taken(self) -> bool:
        """Waits until a slow node is at work."""
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            with urllib.request.urlopen(f"{self.url}/queue", timeout=10) as answer:  # noqa: S310
                if json.loads(answer.read())["queue_running"]:
                    return True
            time.sleep(0.01)
        return False

    @property
    def spans(self) -> list[dict[str, Any]]:
        """What the console exporter printed."""
        decoder, found, at = json.JSONDecoder(), [], self.output.find("{\n")
        while at >= 0:
            span, length = decoder.raw_decode(self.output[at:])
            found.append(span)
            at = self.output.find("{\n", at + length)
        return found


@contextmanager
def comfyui(
    folder: Path, launcher: Sequence[str] = (sys.executable,), environment: Mapping[str, str] | None = None
) -> Iterator[ComfyUI]:
    """Runs `launcher main.py` in a copy of the stand-in in the folder, and ends it with SIGTERM."""
    home = folder / "ComfyUI"
    shutil.copytree(FOLDER, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__*"))
    address = free_endpoint()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHONPATH"))}
    exporters = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    output = folder / "output.txt"
    with output.open("w") as printed:
        process = subprocess.Popen(
            (*launcher, "main.py", address.rpartition(":")[2]),
            cwd=home,
            env={**kept, **exporters, **(environment or {})},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
    server = ComfyUI(address)
    try:
        _wait(server, process, output)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE_S)
        finally:
            process.kill()
            server.output = output.read_text()


def _wait(server: ComfyUI, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/history/none", timeout=5):  # noqa: S310
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"the server did not start:\n{output.read_text()}")
