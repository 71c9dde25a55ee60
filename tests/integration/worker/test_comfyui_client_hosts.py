"""What the host sees of its client libraries is the same with our hooks, without them, and when each of them fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.comfyui_replay import Replay, replay

ROOT = Path(__file__).parents[3]


RESTORING = {"httpx.restore", "requests.restore"}


def _without_truths(seen: list[Any]) -> list[Any]:
    return [each for each in seen if not isinstance(each, bool)]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Replay]]:
    with replay() as running:
        yield running


def _play(url: str, run: str, mode: str) -> Any:
    environment = {**os.environ, "OTEL_PIPELINE_COMFYUI_URLS": f"{url},127.0.0.1:9"}
    command = [sys.executable, "-W", "error", "-m", "tests.support.comfyui_flows", url, run, mode]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def plain(server: tuple[str, Replay]) -> Any:
    return _play(server[0], "plain", "plain")


def test_the_host_sees_the_same_with_the_hooks(server: tuple[str, Replay], plain: Any) -> None:
    told = _play(server[0], "hooked", "hooked")
    assert told["seen"] == plain
    assert told["failures"] == {}


def test_the_server_gets_the_same_but_for_the_context(server: tuple[str, Replay], plain: Any) -> None:
    assert plain
    _play(server[0], "again", "hooked")
    changed = 0
    for number in ("09", "04"):
        before, after = (server[1].passage(run, number).received for run in ("plain", "again"))
        assert [each[:2] for each in before] == [each[:2] for each in after]
        for (_, path, given), (_, _, sent) in zip(before, after, strict=True):
            if sent != given and path == "/prompt":
                changed += 1
                body = json.loads(sent)
                assert body.pop("extra_data").keys() == {"traceparent", "baggage"}
                assert body == json.loads(given)
            elif "boundary" not in given and "form-data" not in given:
                assert sent == given
    assert changed == 10


def test_the_host_sees_the_same_when_any_hook_fails(server: tuple[str, Replay], plain: Any) -> None:
    found = _play(server[0], "faults", "faults")
    assert len(found) > 25
    for name, (_, seen) in found.items():
        if name in RESTORING:
            # The request that a response names is the copy that was sent; it is as good, but not the host's object.
            assert [_without_truths(each) for each in seen] == [_without_truths(each) for each in plain], name
        else:
            assert seen == plain, name
    reached = {name for name, (failures, _) in found.items() if failures}
    missed = {name for name in found if name not in reached}
    assert not [name for name in missed if name.split(".")[0] in {"httpx", "requests", "urllib"}]
    assert {"comfyui.begin", "comfyui.answered", "comfyui.received", "comfyui.close_job"} <= reached


STALLING = """
import json, socket, sys, threading, time, urllib.error, urllib.request
from otel_pipeline.worker import activation, guard
activation.activate()
form, error = sys.argv[1], json.dumps({"error": {"type": "no_prompt", "message": "m"}, "node_errors": {}}).encode()
head = {
    "length": b"Content-Length: %d\\r\\n\\r\\n" % len(error),
    "chunked": b"Transfer-Encoding: chunked\\r\\n\\r\\n",
}[form]
body = error if form == "length" else b"%x\\r\\n%b\\r\\n0\\r\\n\\r\\n" % (len(error), error)
told = threading.Event()

def serve():
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\\r\\n" + head)
        assert told.wait(20)
        connection.sendall(body)
        time.sleep(0.05)

with socket.create_server(("127.0.0.1", 0)) as listener:
    thread = threading.Thread(target=serve)
    thread.start()
    url = "http://127.0.0.1:%d/prompt" % listener.getsockname()[1]
    data = json.dumps({"prompt": {"1": {"class_type": "A", "inputs": {}}}}).encode()
    try:
        urllib.request.urlopen(url, data, timeout=15)
    except urllib.error.HTTPError as raised:
        told.set()
        print(json.dumps([raised.code, raised.read() == error, raised.fp is not None]))
        raised.close()
    thread.join()
print(json.dumps({name: each.failures for name, each in guard.HOOKS.items() if each.failures}))
"""


@pytest.mark.parametrize("form", ["length", "chunked"])
def test_an_error_whose_body_comes_late_reaches_the_host_at_once_and_whole(form: str) -> None:
    command = [sys.executable, "-W", "error", "-c", STALLING, form]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [[400, True, True], {}]
