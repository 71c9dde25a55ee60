"""Where this process runs: host, container, pod, provider, and which GPUs it may use. Attributes for the resource.

Everything is read from the environment and small files; GPUs also from NVML, in a thread that is waited for one second,
as a driver in trouble may hang. torch is never imported: ComfyUI must be the first to do so, and workers pay for it in
seconds and GPU memory. What cannot be known is left out; nothing is guessed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

from otel_pipeline.worker.process import gpus

Attributes: TypeAlias = dict[str, str | int | list[str]]

GPU_IDS: Final = "otel_pipeline.gpu.ids"
"""UUIDs of the GPUs that this process may use, as `hw.id` of the GPU metrics."""
GPU_COUNT: Final = "otel_pipeline.gpu.count"
TEXT_BYTES_MAX: Final = 65_536
"""Of a file that is read: mountinfo of a container with many volumes is the longest."""
VALUE_MAX: Final = 256
"""Characters of one attribute."""

_COMFYUI: Final = "comfyui"
_WORKER_WORDS: Final = (
    "work",
    "handler",
    "job",
    "queue",
    "consum",
    "client",
    "api",
    "serverless",
    "orchestrat",
    "task",
)
"""Beginnings of words in the name of a worker or of what calls it, also of one that is called after ComfyUI."""
_CONTAINER: Final = re.compile(r"/(?:containers|overlay-containers|docker|sandboxes)/([0-9a-f]{64})\b")
_KUBERNETES: Final = {
    "k8s.pod.name": ("K8S_POD_NAME", "KUBERNETES_POD_NAME", "POD_NAME", "MY_POD_NAME"),
    "k8s.pod.uid": ("K8S_POD_UID", "KUBERNETES_POD_UID", "POD_UID", "MY_POD_UID"),
    "k8s.namespace.name": ("K8S_NAMESPACE", "K8S_NAMESPACE_NAME", "POD_NAMESPACE", "KUBERNETES_NAMESPACE"),
    "k8s.node.name": ("K8S_NODE_NAME", "KUBERNETES_NODE_NAME", "NODE_NAME", "MY_NODE_NAME"),
    "k8s.container.name": ("K8S_CONTAINER_NAME", "CONTAINER_NAME"),
}
"""The names under which deployments pass the downward API on; Kubernetes itself sets none of them."""
_NAMESPACE_FILE: Final = "var/run/secrets/kubernetes.io/serviceaccount/namespace"
_MACHINE_ID_FILES: Final = ("etc/machine-id", "var/lib/dbus/machine-id")


def attributes() -> Attributes:
    """Of this process, read once. Never raises."""
    return dict(_of_this_process(os.getpid()))


@functools.lru_cache(maxsize=1)
def _of_this_process(_pid: int) -> Attributes:
    return read(os.environ, Path("/"))


def read(environment: Mapping[str, str], root: Path) -> Attributes:
    """The attributes of a machine whose files are below `root`."""
    found: Attributes = {}
    for part in (_host, _container, _kubernetes, _runpod, _vast, _gpus):
        with contextlib.suppress(Exception):  # what cannot be read costs the one part
            found |= part(environment, root)
    return {key: value[:VALUE_MAX] if isinstance(value, str) else value for key, value in found.items() if value != ""}


def service_name() -> str | None:
    """The name that this process has instead of the one it was given; None to leave that as it is. Never raises."""
    try:
        return role_name(os.environ, sys.orig_argv, Path.cwd())
    except OSError:
        return None


def role_name(environment: Mapping[str, str], arguments: list[str], folder: Path) -> str | None:
    """A ComfyUI server is often started by the worker's script, with the worker's environment and so with its name.

    A name that is meant for ComfyUI (it says so, and says nothing of a worker) stays; any other gets `-comfyui`.
    """
    if not is_comfyui(arguments, folder):
        return None
    given = _given_service_name(environment)
    if not given:
        return _COMFYUI
    words = re.split("[^a-z0-9]+", given.lower())
    if "comfy" in given.lower() and not any(word.startswith(_WORKER_WORDS) for word in words):
        return None
    return f"{given}-{_COMFYUI}"


def is_comfyui(arguments: list[str], folder: Path) -> bool:
    """Whether a command line, interpreter first, starts a ComfyUI server: `main.py` beside ComfyUI's other modules."""
    script = script_of(arguments)
    if script is None or Path(script).name != "main.py":
        return False
    home = (folder / script).parent
    return all((home / name).is_file() for name in ("execution.py", "nodes.py", "server.py"))


def script_of(arguments: list[str]) -> str | None:
    """The script of a command line; None for `-m`, `-c` and the like."""
    rest = iter(arguments[1:])
    for each in rest:
        if not each.startswith("-"):
            return each
        if each in {"-X", "-W", "--check-hash-based-pycs"}:
            next(rest, None)
        elif each in {"-", "--"} or each.startswith(("-c", "-m")):
            return None
    return None


def _given_service_name(environment: Mapping[str, str]) -> str:
    given = environment.get("OTEL_SERVICE_NAME", "").strip()
    if given:
        return given
    for pair in environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name":
            return value.strip()
    return ""


# -- the parts ---------------------------------------------------------------------------------------------------------


def _host(environment: Mapping[str, str], root: Path) -> Attributes:
    found: Attributes = {"host.name": socket.gethostname()}
    if not _in_container(environment, root):
        # A container's machine-id is that of its image, the same on every host.
        found["host.id"] = next((text for name in _MACHINE_ID_FILES if (text := _text(root / name))), "")
    return found


def _container(_environment: Mapping[str, str], root: Path) -> Attributes:
    for name in ("proc/self/cgroup", "proc/self/mountinfo"):
        match = _CONTAINER.search(_text(root / name))
        if match is not None:
            return {"container.id": match.group(1)}
    return {}


def _kubernetes(environment: Mapping[str, str], root: Path) -> Attributes:
    if "KUBERNETES_SERVICE_HOST" not in environment:
        return {}
    found: Attributes = {}
    for key, variables in _KUBERNETES.items():
        found[key] = next((environment[name] for name in variables if environment.get(name)), "")
    if not found["k8s.pod.name"]:
        found["k8s.pod.name"] = environment.get("HOSTNAME", "")
    if not found["k8s.namespace.name"]:
        found["k8s.namespace.name"] = _text(root / _NAMESPACE_FILE)
    return found


def _runpod(environment: Mapping[str, str], _root: Path) -> Attributes:
    pod, endpoint = environment.get("RUNPOD_POD_ID", ""), environment.get("RUNPOD_ENDPOINT_ID", "")
    if not pod and not endpoint:
        return {}
    found: Attributes = {
        "cloud.provider": "runpod",
        "cloud.platform": "runpod_serverless" if endpoint else "runpod_pod",
        "cloud.region": environment.get("RUNPOD_DC_ID", ""),
        "host.id": pod,
        "host.type": environment.get("RUNPOD_GPU_NAME", "") or environment.get("RUNPOD_GPU_TYPE_ID", ""),
    }
    if endpoint:
        found |= {"faas.name": endpoint, "faas.instance": pod}
    return found | _count(environment.get("RUNPOD_GPU_COUNT", ""))


def _vast(environment: Mapping[str, str], _root: Path) -> Attributes:
    label = environment.get("VAST_CONTAINERLABEL", "")
    if not label:
        return {}
    return {
        "cloud.provider": "vast",
        "cloud.platform": "vast_instance",
        "host.id": label.removeprefix("C."),
    } | _count(environment.get("GPU_COUNT", ""))


def _count(text: str) -> Attributes:
    return {GPU_COUNT: int(text)} if text.isdecimal() and len(text) <= 4 else {}


def _gpus(environment: Mapping[str, str], root: Path) -> Attributes:
    visible = gpus.visible(environment, root)
    return {GPU_IDS: list(visible), GPU_COUNT: len(visible)} if visible else {}


def _in_container(environment: Mapping[str, str], root: Path) -> bool:
    if any(name in environment for name in ("KUBERNETES_SERVICE_HOST", "RUNPOD_POD_ID", "VAST_CONTAINERLABEL")):
        return True
    return any((root / name).exists() for name in (".dockerenv", "run/.containerenv"))


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(TEXT_BYTES_MAX).strip()
    except OSError:
        return ""
