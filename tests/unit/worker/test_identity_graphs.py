"""What a ComfyUI graph tells: one hash for a workflow, its model, how much it makes."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_pipeline.worker import identity, names
from otel_pipeline.worker.identity import graph_hash, graph_model, graph_quantities, graphs

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5,
            "steps": 20,
            "cfg": 7.5,
            "sampler_name": "euler",
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sdxl/base.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 768, "batch_size": 2}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "out"}},
}


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    graph = copy.deepcopy(GRAPH)
    change(graph)
    return graph


def renumbered(graph: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(graph)
    for key in graph:
        text = text.replace(f'"{key}"', f'"1{key}"')
    return dict(reversed(json.loads(text).items()))


@pytest.mark.parametrize(
    "same",
    [
        changed(lambda g: g["3"]["inputs"].update(seed=6)),
        changed(lambda g: g["6"]["inputs"].update(text="a dog in the rain")),
        changed(lambda g: g["5"]["inputs"].update(width=512, height=512, batch_size=1)),
        changed(lambda g: g["9"]["inputs"].update(filename_prefix="job-17")),
        changed(lambda g: g["4"]["inputs"].update(ckpt_name="other.safetensors")),
        changed(lambda g: g["6"].update(_meta={"title": "Prompt"})),
        renumbered(GRAPH),
    ],
)
def test_jobs_of_one_workflow_have_one_hash(same: dict[str, Any]) -> None:
    assert graph_hash(same) == graph_hash(GRAPH)


@pytest.mark.parametrize(
    "other",
    [
        changed(lambda g: g["3"]["inputs"].update(sampler_name="dpmpp_2m")),
        changed(lambda g: g["3"]["inputs"].update(steps=4)),
        changed(lambda g: g["3"]["inputs"].update(negative=["6", 0])),
        changed(lambda g: g["8"].update(class_type="VAEDecodeTiled")),
        changed(lambda g: g.pop("9")),
    ],
)
def test_another_workflow_has_another_hash(other: dict[str, Any]) -> None:
    assert graph_hash(other) != graph_hash(GRAPH)


def test_a_hash_is_a_short_name_without_content() -> None:
    found = graph_hash(GRAPH)
    assert found is not None
    assert found.startswith("graph-")
    assert len(found) == 18


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, {"a": 1}, {"prompt": "x"}, {"1": {"inputs": {}}}])
def test_what_is_no_graph_has_no_hash(value: object) -> None:
    assert graph_hash(value) is None
    assert graph_model(value) is None
    assert graph_quantities(value) == {}


def test_the_editors_form_has_a_hash_too() -> None:
    editor = {"nodes": [{"type": "KSampler"}, {"type": "SaveImage"}, {"title": "note"}], "links": []}
    assert graph_hash(editor) is not None
    assert graph_hash(editor) != graph_hash({**editor, "nodes": editor["nodes"][:1]})


@pytest.mark.parametrize(
    ("nodes", "model"),
    [
        ([("CheckpointLoaderSimple", {"ckpt_name": "sdxl/base.safetensors"})], "base.safetensors"),
        (
            [("UNETLoader", {"unet_name": "flux1-dev.safetensors"}), ("VAELoader", {"vae_name": "ae.sft"})],
            "flux1-dev.safetensors",
        ),
        ([("LoraLoader", {"lora_name": "x.safetensors"}), ("UNETLoader", {"unet_name": "wan.gguf"})], "wan.gguf"),
        ([("WanVideoModelLoader", {"model": "wan\\2.2.safetensors"})], "2.2.safetensors"),
        (
            [("UpscaleModelLoader", {"model_name": "4x.pth"}), ("LoraLoader", {"lora_name": "l.safetensors"})],
            "l.safetensors",
        ),
        ([("UpscaleModelLoader", {"model_name": "4x.pth"})], None),
        ([("KSampler", {"model": ["4", 0]})], None),
    ],
)
def test_the_model_is_that_of_the_main_loader(nodes: list[tuple[str, dict[str, Any]]], model: str | None) -> None:
    graph = {str(index): {"class_type": kind, "inputs": inputs} for index, (kind, inputs) in enumerate(nodes)}
    assert graph_model(graph) == model


def test_quantities_of_images() -> None:
    assert graph_quantities(GRAPH) == {names.IMAGES: 2, names.MEGAPIXELS: 1.572864}


def test_quantities_of_a_video_with_a_linked_length() -> None:
    graph = {
        "1": {
            "class_type": "WanImageToVideo",
            "inputs": {"width": 832, "height": 480, "length": ["2", 0], "batch_size": 1},
        },
        "2": {"class_type": "PrimitiveInt", "inputs": {"value": 81}},
        "3": {"class_type": "VHS_VideoCombine", "inputs": {"frame_rate": 16, "images": ["1", 0]}},
    }
    assert graph_quantities(graph) == {names.VIDEO_SECONDS: 5.062, names.MEGAPIXELS: 0.39936}


def test_quantities_of_sound() -> None:
    graph = {"1": {"class_type": "EmptyLatentAudio", "inputs": {"seconds": 47.6}}}
    assert graph_quantities(graph) == {names.AUDIO_SECONDS: 47.6}


def test_a_job_that_carries_a_graph_is_told_by_it() -> None:
    for message in (
        {"input": {"workflow": GRAPH}},
        {"prompt": json.dumps(GRAPH)},
        {"input": {"workflow": json.dumps(GRAPH)}},
        GRAPH,
    ):
        assert identity.fields(message) == {
            names.WORKFLOW: graph_hash(GRAPH),
            names.MODEL: "base.safetensors",
            names.IMAGES: 2,
            names.MEGAPIXELS: 1.572864,
        }
    named = identity.fields({"workflow_name": "portrait", "model": "sdxl", "num_images": 1, "workflow": GRAPH})
    assert (named[names.WORKFLOW], named[names.MODEL], named[names.IMAGES]) == ("portrait", "sdxl", 1)


def test_a_graph_of_any_size_is_hashed_in_bounded_time() -> None:
    node = {"class_type": "X", "inputs": {f"i{n}": ["0", 0] for n in range(500)}}
    graph = {str(index): node for index in range(50_000)}
    begin = time.process_time()
    assert graph_hash(graph) is not None
    assert time.process_time() - begin < 3.0


def test_the_graphs_of_the_captures_have_hashes_and_models() -> None:
    graphs = [graph for file in sorted(CAPTURES.glob("*.json")) for graph in _graphs(json.loads(file.read_text()))]
    assert graphs
    assert all(graph_hash(graph) for graph in graphs)


CAPTURES = Path(__file__).parents[3] / "otel_pipeline" / "demo" / "captures"


def _graphs(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = (
            [value] if value and all(isinstance(each, dict) and "class_type" in each for each in value.values()) else []
        )
        return own + [graph for each in value.values() for graph in _graphs(each)]
    return [graph for each in value for graph in _graphs(each)] if isinstance(value, list) else []


@pytest.mark.parametrize("size", [graphs.HASHED_MAX, graphs.HASHED_MAX + 1])
def test_a_workflow_that_is_remembered_has_the_hash_of_one_that_is_not(size: int) -> None:
    def made() -> dict[str, Any]:
        first = {"0": {"class_type": "Load", "inputs": {}}}
        return first | {
            str(at): {"class_type": "Next", "inputs": {"on": [str(at - 1), 0], "steps": 3}} for at in range(1, size)
        }

    first = graph_hash(made())
    graphs._hash_of.cache_clear()
    assert graph_hash(made()) == graph_hash(made()) == first
    assert graphs._hash_of.cache_info().currsize == (1 if size <= graphs.HASHED_MAX else 0)
