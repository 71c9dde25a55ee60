from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_pipeline.worker.detector import WorkerResourceDetector
from otel_pipeline.worker.process import gpus, resource

CONTAINER = "f" * 64


@pytest.fixture(autouse=True)
def _no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "installed", lambda _root: ())


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_a_machine_is_known_by_name_and_machine_id(tmp_path: Path) -> None:
    write(tmp_path, "etc/machine-id", "0123456789abcdef\n")
    assert resource.read({}, tmp_path) == {"host.name": socket.gethostname(), "host.id": "0123456789abcdef"}


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_a_containers_machine_id_is_not_its_hosts(mark: str, tmp_path: Path) -> None:
    write(tmp_path, "etc/machine-id", "that of the image")
    write(tmp_path, mark, "")
    write(tmp_path, "proc/self/mountinfo", f"1 2 3 /var/lib/docker/containers/{CONTAINER}/hostname /etc/hostname rw")
    found = resource.read({}, tmp_path)
    assert "host.id" not in found
    assert found["container.id"] == CONTAINER


def test_a_runpod_pod_is_a_host_in_a_region(tmp_path: Path) -> None:
    write(tmp_path, "etc/machine-id", "that of the image")
    environment = {"RUNPOD_POD_ID": "pod1", "RUNPOD_DC_ID": "EU-RO-1", "RUNPOD_GPU_COUNT": "2", "RUNPOD_API_KEY": "key"}
    assert resource.read(environment, tmp_path) == {
        "host.name": socket.gethostname(),
        "host.id": "pod1",
        "cloud.provider": "runpod",
        "cloud.platform": "runpod_pod",
        "cloud.region": "EU-RO-1",
        "otel_pipeline.gpu.count": 2,
    }


def test_a_serverless_worker_is_an_instance_of_its_endpoint(tmp_path: Path) -> None:
    found = resource.read({"RUNPOD_POD_ID": "pod1", "RUNPOD_ENDPOINT_ID": "end1", "RUNPOD_GPU_COUNT": "x"}, tmp_path)
    assert (found["faas.name"], found["faas.instance"], found["host.id"]) == ("end1", "pod1", "pod1")
    assert found["cloud.platform"] == "runpod_serverless"
    assert "otel_pipeline.gpu.count" not in found


def test_a_vast_instance_is_a_host(tmp_path: Path) -> None:
    found = resource.read({"VAST_CONTAINERLABEL": "C.1234", "CONTAINER_API_KEY": "key"}, tmp_path)
    assert (found["cloud.provider"], found["host.id"]) == ("vast", "1234")
    assert "key" not in found.values()


def test_kubernetes_is_known_by_what_the_deployment_passes_on(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAME": "w-1", "NODE_NAME": "n-1", "POD_UID": "u-1"}
    write(tmp_path, "var/run/secrets/kubernetes.io/serviceaccount/namespace", "video")
    found = resource.read(environment, tmp_path)
    assert {key: value for key, value in found.items() if key.startswith("k8s.")} == {
        "k8s.pod.name": "w-1",
        "k8s.node.name": "n-1",
        "k8s.pod.uid": "u-1",
        "k8s.namespace.name": "video",
    }
    assert resource.read({**environment, "POD_NAME": "", "HOSTNAME": "w-2"}, tmp_path)["k8s.pod.name"] == "w-2"
    assert "k8s.pod.name" not in resource.read({"POD_NAME": "w-1"}, tmp_path)


def test_the_gpus_that_are_seen_count_before_what_the_provider_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "installed", lambda _root: (gpus.Gpu("GPU-a", "T4"),))
    found = resource.read({"RUNPOD_POD_ID": "pod1", "RUNPOD_GPU_COUNT": "8"}, tmp_path)
    assert (found[resource.GPU_IDS], found[resource.GPU_COUNT]) == (["GPU-a"], 1)


def test_a_part_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_root: Path) -> tuple[gpus.Gpu, ...]:
        raise OSError("gone")

    monkeypatch.setattr(gpus, "installed", fail)
    assert resource.read({"RUNPOD_POD_ID": "pod1"}, tmp_path)["host.id"] == "pod1"


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom otel_pipeline.worker.process import resource\n"
        "resource.attributes()\nresource.service_name()\n"
        "print({'torch', 'numpy', 'redis', 'opentelemetry.sdk'} & set(sys.modules))"
    )
    found = subprocess.run((sys.executable, "-c", code), check=True, capture_output=True, text=True, timeout=30)
    assert found.stdout == "set()\n"


# -- the name of a ComfyUI server --------------------------------------------------------------------------------------


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    for name in ("main.py", "execution.py", "nodes.py", "server.py"):
        write(tmp_path, f"ComfyUI/{name}", "")
    write(tmp_path, "worker/main.py", "")
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "comfyui"),
        ({"OTEL_SERVICE_NAME": "worker"}, "worker-comfyui"),
        ({"OTEL_SERVICE_NAME": "comfyui-worker"}, "comfyui-worker-comfyui"),
        ({"OTEL_SERVICE_NAME": "worker-comfyui"}, "worker-comfyui-comfyui"),
        ({"OTEL_SERVICE_NAME": "comfyui"}, None),
        ({"OTEL_SERVICE_NAME": "prod-comfyui"}, None),
        ({"OTEL_SERVICE_NAME": "ComfyUI.eu"}, None),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod, service.name=video"}, "video-comfyui"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=comfyui"}, None),
        ({"OTEL_SERVICE_NAME": "comfyui", "OTEL_RESOURCE_ATTRIBUTES": "service.name=video"}, None),
    ],
)
def test_a_comfyui_server_does_not_share_the_workers_name(
    environment: Mapping[str, str], expected: str | None, comfyui: Path
) -> None:
    arguments = ["python", "-u", "main.py", "--listen"]
    assert resource.role_name(environment, arguments, comfyui / "ComfyUI") == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["python", "ComfyUI/main.py"], True),
        (["python", "-X", "dev", "-u", "ComfyUI/main.py", "--port", "8188"], True),
        (["python", "worker/main.py"], False),
        (["python", "worker.py", "ComfyUI/main.py"], False),
        (["python", "-m", "ComfyUI/main.py"], False),
        (["python", "-c", "pass", "ComfyUI/main.py"], False),
        (["python", "ComfyUI/nodes.py"], False),
        (["python", "-"], False),
        (["python"], False),
    ],
)
def test_a_comfyui_server_is_told_by_its_script(arguments: list[str], expected: bool, comfyui: Path) -> None:  # noqa: FBT001
    assert resource.is_comfyui(arguments, comfyui) is expected


def test_any_other_process_keeps_its_name(comfyui: Path) -> None:
    assert resource.role_name({}, ["python", "worker.py"], comfyui) is None
    assert resource.service_name() is None


def test_the_detector_gives_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "attributes", lambda: {"host.id": "h", resource.GPU_IDS: ["GPU-a"]})
    monkeypatch.setattr(resource, "service_name", lambda: "comfyui")
    found = WorkerResourceDetector().detect().attributes
    assert found == {"host.id": "h", resource.GPU_IDS: ("GPU-a",), "service.name": "comfyui"}
    monkeypatch.setattr(resource, "service_name", lambda: None)
    assert "service.name" not in WorkerResourceDetector().detect().attributes
