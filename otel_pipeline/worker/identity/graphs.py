"""What a ComfyUI graph says of the work without saying its content: which workflow, which model, how much.

A graph is the API form, `{node id: {"class_type", "inputs"}}`; the editor's form (`nodes`, `links`) is told by its
types only. Texts, seeds, file names and sizes of a graph differ from job to job, so none of them is part of its hash.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections import Counter
from typing import Any, Final

from opentelemetry.util.types import AttributeValue

from otel_pipeline.worker import names
from otel_pipeline.worker.reading.paths import base
from otel_pipeline.worker.reading.payload import member, scalar

NODES_MAX: Final = 2000
"""Nodes of a graph that are looked at: real ones have up to some hundreds."""
INPUTS_MAX: Final = 64
"""Inputs of one node."""
FIRST_MAX: Final = 3
"""Entries one of which is a node in a graph: a comment or settings may come first."""
ROUNDS: Final = 3
"""How far around it a node's links are told apart."""
HASHES_MAX: Final = 16
"""Workflows whose hash is remembered: a worker runs the same few all day."""
HASHED_MAX: Final = 300
"""Nodes of a workflow that is remembered: some 200 KB."""
NAMES_MAX: Final = 1024
"""Names of inputs and classes that are remembered with what they are."""
OPTION_MAX: Final = 40
"""Longer texts are content, not options."""

Link = tuple[str, str, int]
"""Input, node and slot."""
Shape = tuple[str, str, tuple[str, ...], tuple[Link, ...]]
"""A node for the hash: its id, class, options and links."""

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
    for node in itertools.islice(value.values(), FIRST_MAX):
        if isinstance(node, dict) and isinstance(node.get("class_type"), str):
            return True
    return False


def graph_hash(graph: object) -> str | None:
    """`graph-` and 12 hexadecimal digits, the same for all jobs of one workflow; None for what is no graph."""
    if not is_graph(graph):
        return None
    shape = tuple((key, _class(node), *_inputs(node)) for key, node in _nodes(graph).items())
    return (_hash_of if len(shape) <= HASHED_MAX else _hash_of.__wrapped__)(shape)


@functools.lru_cache(maxsize=HASHES_MAX)
def _hash_of(nodes: tuple[Shape, ...]) -> str:
    used = Counter(source for _, _, _, links in nodes for _, source, _ in links)
    labels = {key: _digest(kind, str(used[key]), *options) for key, kind, options, _ in nodes}
    for _ in range(ROUNDS):
        labels = {
            key: _digest(labels[key], *(f"{name}<{labels.get(source, '')}:{slot}" for name, source, slot in links))
            for key, _, _, links in nodes
        }
    return "graph-" + _digest(*sorted(labels.values()))[:12]


def graph_model(graph: object) -> str | None:
    """The file name of the model that the graph loads: a checkpoint, else a diffusion model, else the first LoRA."""
    nodes = list(_nodes(graph).values())
    for wanted in _MODEL_INPUTS:
        found = next((name for node in nodes if (name := _file(dict.get(node["inputs"], wanted)))), None)
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
        if _is_latent(kind):
            width, height = _number(nodes, inputs, "width"), _number(nodes, inputs, "height")
            batch = max(_number(nodes, inputs, "batch_size"), 1)
            if width and height:
                images += batch
                pixels += width * height * batch
            for name in ("length", "num_frames", "video_frames", "frames", "frame_count"):
                frames = max(frames, _number(nodes, inputs, name))
            if "audio" in kind.lower():
                sound += _number(nodes, inputs, "seconds")
        if _is_video(kind):
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


@functools.lru_cache(maxsize=NAMES_MAX)
def _is_latent(kind: str) -> bool:
    return _LATENT.search(kind) is not None


@functools.lru_cache(maxsize=NAMES_MAX)
def _is_video(kind: str) -> bool:
    return _VIDEO.search(kind) is not None


@functools.lru_cache(maxsize=NAMES_MAX)
def _varies(name: str) -> bool:
    return _VARYING.search(name) is not None


def _inputs(node: dict[str, Any]) -> tuple[tuple[str, ...], tuple[Link, ...]]:
    """The inputs that belong to the workflow: switches, steps, samplers; and the links."""
    options: list[str] = []
    links: list[Link] = []
    for name, value in itertools.islice(node["inputs"].items(), INPUTS_MAX):
        key = str(name)[:128]
        if isinstance(value, list):
            if len(value) == 2 and isinstance(value[0], (str, int)) and isinstance(value[1], int):
                links.append((key, str(value[0]), value[1]))
        elif isinstance(value, (str, int, float)) and not _varies(key):
            if isinstance(value, float):
                options.append(f"{key}={value:g}")
            elif not isinstance(value, str) or not (
                len(value) > OPTION_MAX or "." in value or "/" in value or " " in value
            ):
                options.append(f"{key}={value!r}")
    return tuple(sorted(options)), tuple(sorted(links))


def _number(nodes: dict[str, Any], inputs: dict[Any, Any], name: str) -> float:
    """A positive number, also one that comes from a node that holds a number."""
    value = dict.get(inputs, name)
    if value is None:
        return 0.0
    if isinstance(value, list) and len(value) == 2 and str(value[0]) in nodes:
        source = nodes[str(value[0])]["inputs"]
        value = next(
            (v for k in ("value", "int", "float", "number", name) if (v := member(source, k)) is not None), None
        )
    number = scalar(value)
    return (
        float(number) if isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < 1e6 else 0.0
    )


def _file(value: object) -> str | None:
    text = scalar(value)
    return base(text)[:128] if isinstance(text, str) and len(text) <= 512 else None


def _digest(*pieces: str) -> str:
    return hashlib.blake2b("\x00".join(pieces).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
