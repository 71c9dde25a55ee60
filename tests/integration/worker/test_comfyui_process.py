from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.worker import autoload
from otel_pipeline.worker import comfyui as package
from tests.support.comfyui_stub import SHAPES
from tests.support.worker_comfyui import comfyui

INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))
AUTOLOAD = str(Path(autoload.__file__).parent)
CUSTOM_NODE = Path(package.__file__).parent / "custom_node"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "baggage": "otel_pipeline.job.id=job-1"}
PROMPT = {
    "1": {"class_type": "Expand", "inputs": {"text": "a"}},
    "2": {"class_type": "Async", "inputs": {"text": ["1", 0]}},
    "9": {"class_type": "Out", "inputs": {"text": ["2", 0]}},
}


def tree(spans: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(name, name of the parent) of each."""
    by_id = {span["context"]["span_id"]: span["name"] for span in spans}
    return {(span["name"], by_id.get(span["parent_id"], "")) for span in spans}


EXPECTED = {
    ("comfyui.execute", ""),
    ("comfyui.node Expand", "comfyui.execute"),
    ("comfyui.node Value", "comfyui.node Expand"),
    ("comfyui.node Async", "comfyui.execute"),
    ("comfyui.node Out", "comfyui.execute"),
}


def check(server: Any, prompt_id: str, service: str) -> None:
    spans = server.spans
    assert tree(spans) == EXPECTED, server.output
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{TRACE}"}
    assert {span["attributes"]["comfyui.prompt.id"] for span in spans} == {prompt_id}
    assert {span["attributes"]["otel_pipeline.job.id"] for span in spans} == {"job-1"}
    assert {span["resource"]["attributes"]["service.name"] for span in spans} == {service}
    (prompt,) = [span for span in spans if span["name"] == "comfyui.execute"]
    assert prompt["parent_id"] == f"0x{PARENT}"
    assert prompt["attributes"]["comfyui.queue.wait"] >= 0


@pytest.mark.parametrize("shape", SHAPES)
def test_opentelemetry_instrument_is_enough(shape: str, tmp_path: Path) -> None:
    environment = {"COMFYUI_STUB_SHAPE": shape, "OTEL_SERVICE_NAME": "video-worker"}
    with comfyui(tmp_path, (INSTRUMENT, sys.executable), environment) as server:
        prompt_id, history = server.run(PROMPT, headers=HEADERS)
    assert history["status"]["status_str"] == "success"
    assert history["headers"]["x-otel-pipeline-nodes"] == "server"
    assert "traceparent" not in history["prompt"][3]
    check(server, prompt_id, "video-worker-comfyui")


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    with comfyui(tmp_path, environment={"PYTHONPATH": AUTOLOAD}) as server:
        prompt_id, _ = server.run(PROMPT, extra=HEADERS)
    check(server, prompt_id, "comfyui")


def test_the_folder_in_custom_nodes_is_enough(tmp_path: Path) -> None:
    """Its two files are run where ComfyUI runs them: before the imports, and once the server exists."""
    shutil.copytree(CUSTOM_NODE, tmp_path / "ComfyUI/custom_nodes/tracing")
    starter = tmp_path / "start.py"
    starter.write_text(
        "import os, runpy, sys\nsys.argv = sys.argv[1:]\nsys.path.insert(0, os.getcwd())\n"
        "assert 'execution' not in sys.modules\nrunpy.run_path('custom_nodes/tracing/prestartup_script.py')\n"
        "assert runpy.run_path('custom_nodes/tracing/__init__.py')['NODE_CLASS_MAPPINGS'] == {}\n"
        "runpy.run_path('main.py', run_name='__main__')\n"
    )
    environment = {"OTEL_SERVICE_NAME": "comfyui"}
    with comfyui(tmp_path, (sys.executable, str(starter)), environment) as server:
        prompt_id, _ = server.run(PROMPT, headers=HEADERS)
    check(server, prompt_id, "comfyui")


def test_a_server_that_exists_already_can_be_hooked(tmp_path: Path) -> None:
    """The custom node without its prestartup script is loaded between the construction and the start of the server."""
    code = tmp_path / "ComfyUI/late.py"
    code.parent.mkdir()
    code.write_text(
        "import server\nconstruct = server.PromptServer.__init__\n"
        "def late(self, loop):\n    construct(self, loop)\n"
        "    from otel_pipeline.worker.comfyui.custom_node_entry import arm\n    arm()\n"
        "server.PromptServer.__init__ = late\n"
    )
    starter = tmp_path / "start.py"
    starter.write_text(
        "import os, runpy, sys\nsys.argv = sys.argv[1:]\nsys.path.insert(0, os.getcwd())\n"
        "import late\nrunpy.run_path('main.py', run_name='__main__')\n"
    )
    with comfyui(tmp_path, (sys.executable, str(starter)), {"OTEL_SERVICE_NAME": "comfyui"}) as server:
        prompt_id, _ = server.run(PROMPT, headers=HEADERS)
    check(server, prompt_id, "comfyui")


def test_without_us_the_answers_are_the_same(tmp_path: Path) -> None:
    with comfyui(tmp_path / "plain") as plain:
        _, before = plain.run(PROMPT, headers=HEADERS)
    with comfyui(tmp_path / "hooked", (INSTRUMENT, sys.executable)) as hooked:
        _, after = hooked.run(PROMPT, headers=HEADERS)
    assert "x-otel-pipeline-nodes" not in before["headers"]
    assert [event for event, _ in before["status"]["messages"]] == [event for event, _ in after["status"]["messages"]]
    assert before["prompt"][2] == after["prompt"][2]
    assert before["prompt"][3].keys() == after["prompt"][3].keys()
    assert os.linesep not in before["headers"].values()


def test_a_server_that_is_stopped_tells_of_the_prompt_at_work(tmp_path: Path) -> None:
    slow = {"1": {"class_type": "Slow", "inputs": {}}, "9": {"class_type": "Out", "inputs": {"text": ["1", 0]}}}
    with comfyui(tmp_path, (INSTRUMENT, sys.executable)) as server:
        server.post("/prompt", {"prompt": slow}, HEADERS)
        assert server.taken()
    stopped = [span for span in server.spans if span["context"]["trace_id"] == f"0x{TRACE}"]
    assert {span["name"] for span in stopped} == {"comfyui.execute", "comfyui.node Slow"}, server.output
    assert {span["attributes"].get("error.type") for span in stopped} == {"terminated", None}
