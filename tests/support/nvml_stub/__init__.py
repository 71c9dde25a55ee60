"""An NVML without a GPU, for the real pynvml: it is compiled, and found by a process that has its folder on
LD_LIBRARY_PATH. What it shows is said by environment variables, see nvml.c.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


def build(folder: Path) -> Path:
    """Compiles it into the folder, which is returned."""
    source, library = Path(__file__).with_name("nvml.c"), folder / "libnvidia-ml.so.1"
    command = ("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wl,-soname,libnvidia-ml.so.1")
    subprocess.run((*command, "-o", str(library), str(source)), check=True, capture_output=True)
    return folder


def environment(folder: Path, gpus: Sequence[tuple[str, str]]) -> dict[str, str]:
    """For a process that is to see these GPUs, as (UUID, name) in the order of the PCI bus."""
    return {"LD_LIBRARY_PATH": str(folder), "NVML_STUB_GPUS": ";".join("=".join(gpu) for gpu in gpus)}
