"""The ComfyUI stand-in says what the real server said: the pure parts, against the captures themselves."""

from __future__ import annotations

import ast
import json
import struct
import sys
import zlib
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest

from otel_pipeline.demo.comfyui import png
from otel_pipeline.demo.playback import NodeCache, Run
from otel_pipeline.demo.producer import MIX, make_jobs
from otel_pipeline.demo.scenarios import CACHED_RUNS, RUNS, Cached, Library, Recording, load
from otel_pipeline.demo.tts import SAMPLES_A_SECOND, wav

Json = dict[str, Any]
IMAGE: Json = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 77}}
INVERT: Json = {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}


@pytest.fixture(scope="module")
def library() -> Library:
    return load()


def capture(name: str) -> Json:
    content: Json = json.loads((files("otel_pipeline.demo") / "captures" / f"{name}.json").read_text("utf-8"))
    return content


def save(source: str, prefix: str = "mine") -> Json:
    return {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": prefix}}


def portrait(color: int = 77, prefix: str = "mine") -> Json:
    image = {**IMAGE, "inputs": {**IMAGE["inputs"], "color": color}}
    return {"1": image, "2": INVERT, "9": save("2", prefix)}


def with_node(class_type: str) -> Json:
    return {"1": IMAGE, "2": INVERT, "3": {"class_type": class_type, "inputs": {"image": ["2", 0]}}, "9": save("3")}


def play(recording: Recording, workflow: Json, **fields: Any) -> Run:
    """A finished run with every message sent at its recorded time stamp."""
    values: Json = {"prompt_id": "new-id", "number": 5, "extra_data": {"client_id": "me"}, "file_number": 3} | fields
    run = Run(recording, workflow=workflow, **values)
    for message in recording.messages:
        if message.kind != "status":
            run.send(message, message.data.get("timestamp", 0))
    return run


@pytest.mark.parametrize("name", [*RUNS, *CACHED_RUNS.values()])
def test_a_run_with_the_recorded_values_gives_the_recorded_history(name: str, library: Library) -> None:
    post, *_, history = capture(name)["http"]
    prompt_id, number = post["response_body"]["prompt_id"], post["response_body"]["number"]
    recorded = history["response_body"][prompt_id]
    recording = next(each for each in (*library.runs, *library.cached.values()) if each.name == name)
    names = [image["filename"] for output in recorded["outputs"].values() for image in output["images"]]
    run = play(
        recording,
        post["request_body"]["prompt"],
        prompt_id=prompt_id,
        number=number,
        extra_data=recorded["prompt"][3],
        file_number=int(names[0].split("_")[-2]) if names else 0,
    )
    assert run.answer() == post["response_body"]
    assert run.history() == recorded


@pytest.mark.parametrize("index", range(13))
def test_each_recorded_refusal_is_answered_as_recorded(index: int, library: Library) -> None:
    exchange = capture("04_validation_errors")["http"][index]
    body = exchange["request_body"] if isinstance(exchange["request_body"], dict) else None
    recording = library.choose(body, "nothing")
    assert (recording.status, recording.answer) == (exchange["status"], exchange["response_body"])


@pytest.mark.parametrize(
    ("workflow", "name"),
    [
        (portrait(), "01_success"),
        (with_node("ProbeRaise"), "05_execution_error"),
        (with_node("ProbeOOM"), "06_out_of_memory"),
        (with_node("ProbeSlow"), "09_progress"),
        (with_node("ProbeAsync"), "12_async_node"),
        (with_node("ProbeExpand"), "13_expanding_node"),
        (with_node("ProbeBlock"), "18_execution_blocker"),
        ({"1": IMAGE, "9": save("1")}, "01_success"),
    ],
)
def test_the_class_types_choose_the_run(workflow: Json, name: str, library: Library) -> None:
    assert library.choose({"prompt": workflow}, "nothing").name == name


@pytest.mark.parametrize(
    ("state", "name"), [("nothing", "01_success"), ("part", "03_partly_cached"), ("all", "02_cached_rerun")]
)
def test_the_cache_decides_between_the_three_recordings_of_one_workflow(
    state: Cached, name: str, library: Library
) -> None:
    assert library.choose({"prompt": portrait()}, state).name == name
    assert library.choose({"prompt": with_node("ProbeOOM")}, state).name == "06_out_of_memory"


def test_an_unknown_node_is_refused_under_its_own_name(library: Library) -> None:
    recording = library.choose({"prompt": {"7": {"class_type": 'K"Sampler', "inputs": {}}}}, "nothing")
    assert recording.status == 400
    assert recording.answer == {
        "error": {
            "type": "missing_node_type",
            "message": "Node 'K\"Sampler' not found. The custom node may not be installed.",
            "details": "Node ID '#7'",
            "extra_info": {"node_id": "7", "class_type": 'K"Sampler', "node_title": 'K"Sampler'},
        },
        "node_errors": {},
    }


@pytest.mark.parametrize("body", [[], "text", 5, {"prompt": []}, {"prompt": "x"}, {}])
def test_json_without_a_workflow_is_no_prompt(body: object, library: Library) -> None:
    answer = library.choose(body, "nothing").answer
    assert isinstance(answer, dict)
    assert answer["error"]["type"] == "no_prompt"


def test_the_cache_knows_whole_workflows_and_those_with_other_outputs() -> None:
    cache = NodeCache()
    assert cache.state(portrait()) == "nothing"
    assert cache.remember(portrait()) == 1
    assert cache.state(portrait()) == "all"
    assert cache.state(portrait(prefix="other")) == "part"
    assert cache.state(portrait(color=1)) == "nothing"
    assert cache.remember(portrait(prefix="other")) == 2
    assert cache.remember(portrait()) == 1


def test_the_cache_forgets_the_oldest_workflow_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_pipeline.demo.playback.REMEMBERED_MAX", 2)
    cache = NodeCache()
    assert [cache.remember(portrait(color)) for color in (1, 2, 3)] == [1, 2, 3]
    assert [cache.state(portrait(color)) for color in (1, 2, 3)] == ["nothing", "all", "all"]


def test_a_run_has_its_own_id_files_and_extra_data_everywhere(library: Library) -> None:
    recording = library.choose({"prompt": portrait()}, "nothing")
    extra = {"client_id": "me", "traceparent": "00-1-2-01"}
    run = play(recording, portrait(prefix="sub/shot"), extra_data=extra)
    text = json.dumps([run.sent, run.history(), run.answer(), run.queue_item()])
    assert recording.prompt_id not in text
    assert "probe" not in text
    assert run.history()["prompt"][3] == extra
    image = {"filename": "shot_00003_.png", "subfolder": "sub", "type": "output"}
    assert run.history()["outputs"]["9"]["images"] == [image]
    assert run.files() == ["shot_00003_.png"]


def test_a_half_accepted_workflow_runs_without_the_refused_output(library: Library) -> None:
    workflow = capture("04_validation_errors")["http"][10]["request_body"]["prompt"]
    run = play(library.choose({"prompt": workflow}, "nothing"), workflow)
    assert list(run.answer()["node_errors"]) == ["8"]
    assert run.queue_item()[4] == ["9"]
    assert run.history()["status"]["status_str"] == "success"


def test_an_interruption_names_the_node_that_was_running(library: Library) -> None:
    recording = library.choose({"prompt": with_node("ProbeSlow")}, "nothing")
    run = Run(recording, "new-id", 1, with_node("ProbeSlow"), {}, 1)
    for message in recording.messages:
        run.send(message, 1)
        if run.node == "3":
            break
    interrupted = next(each for each in library.interrupted.messages if each.kind == "execution_interrupted")
    run.send(run.interruption(interrupted), 2)
    status = run.history()["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert status["messages"][-1] == [
        "execution_interrupted",
        {"prompt_id": "new-id", "node_id": "3", "node_type": "ProbeSlow", "executed": ["1", "2"], "timestamp": 2},
    ]


def test_messages_keep_their_recorded_distances(library: Library) -> None:
    slow = library.choose({"prompt": with_node("ProbeSlow")}, "nothing")
    assert slow.messages[0].after_s == 0
    assert all(one.after_s <= next_.after_s for one, next_ in pairwise(slow.messages))
    assert slow.duration_s == pytest.approx(0.2598)


def test_a_run_is_stretched_to_its_least_duration_and_a_cached_one_is_not(library: Library) -> None:
    slow = library.choose({"prompt": with_node("ProbeSlow")}, "nothing")
    assert slow.stretch(speed=2, run_s_min=0) == 0.5
    assert slow.stretch(speed=2, run_s_min=1) * slow.duration_s == pytest.approx(1)
    assert library.cached["all"].stretch(speed=2, run_s_min=1) == 0.5


def test_the_jobs_of_the_demo_get_what_their_names_promise(library: Library) -> None:
    workflows = json.loads((files("otel_pipeline.demo") / "workflows.json").read_text("utf-8"))
    chosen = {expected: library.choose({"prompt": workflows[name]}, "nothing") for expected, name, _ in MIX}
    assert chosen["success"].name == "01_success"
    assert chosen["execution_error"].name == "05_execution_error"
    assert chosen["out_of_memory"].name == "06_out_of_memory"
    assert chosen["validation_error"].status == 400
    assert library.choose({"prompt": workflows["image_to_video"]}, "nothing").name == "09_progress"


def test_a_cached_job_repeats_the_seed_of_a_success_and_other_successes_do_not() -> None:
    jobs = list(make_jobs(20, now_s=0))
    successes = [job.seed for job in jobs if job.expected == "success"]
    assert len(successes) == len(set(successes))
    assert all(job.seed in successes for job in jobs if job.expected == "cached")
    assert len({job.id for job in jobs}) == 20


def test_the_picture_is_a_real_png() -> None:
    image = png(0x102030, side=4)
    assert image.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")
    size = image.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", image[size : size + 4])
    assert zlib.decompress(image[size + 8 : size + 8 + length]) == (b"\0" + b"\x10\x20\x30" * 4) * 4


def test_the_voice_is_a_real_wav_of_that_length() -> None:
    voice = wav(0.5)
    assert voice.startswith(b"RIFF")
    assert len(voice) == 44 + SAMPLES_A_SECOND


def test_the_worker_knows_nothing_of_telemetry_or_of_this_project() -> None:
    tree = ast.parse((files("otel_pipeline.demo") / "worker.py").read_text("utf-8"))
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    from_ = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in plain | from_} - sys.stdlib_module_names == {"httpx", "redis"}
