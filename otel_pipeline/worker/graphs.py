"""What a ComfyUI graph says of the work without saying its content: which workflow, which model, how much.

A graph is the API form, `{node id: {"class_type", "inputs"}}`; the editor's form (`nodes`, `links`) is told by its
types only. Texts, seeds, file names and sizes of a graph differ from job to job, so none of them is part of its hash.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any, Final

from opentelemetry.util.types import AttributeValue

from otel_pipeline.worker import names
from otel_pipeline.worker.paths import base
from otel_pipeline.worker.payload import member, scalar

NODES_MAX: Final = 2000
"""Nodes of a graph that are looked at: real ones have up to some hundreds."""
INPUTS_MAX: Final = 64
"""Inputs of one node."""
FIRST_MAX: Final = 3
"""Entries one of which is a node in a graph: a comment or settings may come first."""
ROUNDS: Final = 3
"""How far around it a node's links are told apart."""
OPTION_MAX: Final = 40
"""Longer texts are content, not options."""

_VARYING: Final = re.compile(
    r"seed|text|prompt|caption|width|height|length|frames?\b|num_frames|batch|duration|seconds|fps|frame_rate|rate|"
    r"image|video|audio|mask|file|path|folder|prefix|url|lora|key|token|upload|value|string|lyrics|tags|strength",
    re.IGNORECASE,
)
_MODEL_INPUTS: Final = (
    "ckpt_name",
    "unet_name",
    "diffusion_name",
    "diffusion_model",
    "checkpoint",
    "unet",
    "transformer_name",
)
_LOADER: Final = re.compile(r"load", re.IGNORECASE)
_NOT_THE_MODEL: Final = re.compile(
    r"clip|vae|upscal|controlnet|lora|t5|encoder|vision|ipadapter|sam|yolo|detector|face|rife|depth|bbox|insight|style|film",
    re.IGNORECASE,
)
_LATENT: Final = re.compile(
    r"empty(?!image)|latentsize|latentimage|latentvideo|tovideo|text2video|image2video|i2v|t2v", re.IGNORECASE
)
_VIDEO: Final = re.compile(r"video|animat|webm|webp|gif|vhs|ltxv", re.IGNORECASE)


def is_graph(value: object) -> bool:
    """Whether it is a graph, by the look of its first nodes."""
    if not isinstance(value, dict) or not value:
        return False
    if isinstance(value.get("nodes"), list) and isinstance(value.get("links"), list):
        return True
    first = (node for _, node in zip(range(FIRST_MAX), value.values(), strict=False))
    return any(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in first)


def graph_hash(graph: object) -> str | None:
    """`graph-` and 12 hexadecimal digits, the same for all jobs of one workflow; None for what is no graph."""
    if not is_graph(graph):
        return None
    nodes = _nodes(graph)
    used = Counter(source for node in nodes.values() for _, source, _ in _links(node))
    labels = {key: _digest(_class(node), str(used[key]), *_options(node)) for key, node in nodes.items()}
    for _ in range(ROUNDS):
        labels = {
            key: _digest(
                labels[key], *(f"{name}<{labels.get(source, '')}:{slot}" for name, source, slot in _links(node))
            )
            for key, node in nodes.items()
        }
    return "graph-" + _digest(*sorted(labels.values()))[:12]


def graph_model(graph: object) -> str | None:
    """The file name of the model that the graph loads: a checkpoint, else a diffusion model, else the first LoRA."""
    nodes = list(_nodes(graph).values())
    for wanted in _MODEL_INPUTS:
        found = next((name for node in nodes if (name := _file(member(node["inputs"], wanted)))), None)
        if found:
            return found
    for node in nodes:
        kind = _class(node)
        if _LOADER.search(kind) and not _NOT_THE_MODEL.search(kind):
            for wanted in ("model_name", "model", "model_path", "base_model", "gguf_name"):
                if found := _file(member(node["inputs"], wanted)):
                    return found
    return next((name for node in nodes if (name := _file(member(node["inputs"], "lora_name")))), None)


def graph_quantities(graph: object) -> dict[str, AttributeValue]:
    """What it is asked to make: images and their megapixels in all, or seconds of video and a frame's megapixels."""
    nodes = _nodes(graph)
    images = pixels = frames = rate = sound = 0.0
    for node in nodes.values():
        kind, inputs = _class(node), node["inputs"]
        if _LATENT.search(kind):
            width, height = _number(nodes, inputs, "width"), _number(nodes, inputs, "height")
            batch = max(_number(nodes, inputs, "batch_size"), 1)
            if width and height:
                images += batch
                pixels += width * height * batch
            for name in ("length", "num_frames", "video_frames", "frames", "frame_count"):
                frames = max(frames, _number(nodes, inputs, name))
            if "audio" in kind.lower():
                sound += _number(nodes, inputs, "seconds")
        if _VIDEO.search(kind):
            rate = max(rate, _number(nodes, inputs, "fps") or _number(nodes, inputs, "frame_rate"))
    found: dict[str, AttributeValue] = {}
    if frames > 1:
        if rate:
            found[names.VIDEO_SECONDS] = round(frames / rate, 3)
        if pixels and images:
            found[names.MEGAPIXELS] = round(pixels / images / 1e6, 6)
    elif images:
        found[names.IMAGES] = int(images)
        found[names.MEGAPIXELS] = round(pixels / 1e6, 6)
    if sound:
        found[names.AUDIO_SECONDS] = round(sound, 3)
    return found


def _nodes(graph: object) -> dict[str, Any]:
    """The nodes by id, each with a mapping of inputs; of the editor's form only the types."""
    if not isinstance(graph, dict):
        return {}
    listed = graph.get("nodes")
    if isinstance(listed, list):
        typed = [each for each in listed[:NODES_MAX] if isinstance(each, dict) and isinstance(each.get("type"), str)]
        return {str(index): {"class_type": each["type"], "inputs": {}} for index, each in enumerate(typed)}
    found: dict[str, Any] = {}
    for key, node in graph.items():
        if isinstance(node, dict) and isinstance(node.get("class_type"), str):
            inputs = node.get("inputs")
            found[str(key)] = {"class_type": node["class_type"], "inputs": inputs if isinstance(inputs, dict) else {}}
        if len(found) >= NODES_MAX:
            break
    return found


def _class(node: dict[str, Any]) -> str:
    return str(node["class_type"])[:128]


def _some(inputs: dict[Any, Any]) -> list[tuple[str, Any]]:
    return [(str(key)[:128], value) for _, (key, value) in zip(range(INPUTS_MAX), inputs.items(), strict=False)]


def _options(node: dict[str, Any]) -> list[str]:
    """The inputs that belong to the workflow: switches, steps, samplers."""
    found = []
    for key, value in _some(node["inputs"]):
        if _VARYING.search(key) or not isinstance(value, str | int | float):
            continue
        if isinstance(value, str) and (len(value) > OPTION_MAX or "." in value or "/" in value or " " in value):
            continue
        found.append(f"{key}={value!r}" if not isinstance(value, float) else f"{key}={value:g}")
    return sorted(found)


def _links(node: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Input, node and slot of each link."""
    return sorted(
        (key, str(value[0]), value[1])
        for key, value in _some(node["inputs"])
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int)
    )


def _number(nodes: dict[str, Any], inputs: dict[Any, Any], name: str) -> float:
    """A positive number, also one that comes from a node that holds a number."""
    value = member(inputs, name)
    if isinstance(value, list) and len(value) == 2 and str(value[0]) in nodes:
        source = nodes[str(value[0])]["inputs"]
        value = next(
            (v for k in ("value", "int", "float", "number", name) if (v := member(source, k)) is not None), None
        )
    number = scalar(value)
    return (
        float(number) if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < 1e6 else 0.0
    )


def _file(value: object) -> str | None:
    text = scalar(value)
    return base(text)[:128] if isinstance(text, str) and len(text) <= 512 else None


def _digest(*pieces: str) -> str:
    return hashlib.blake2b("\x00".join(pieces).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
