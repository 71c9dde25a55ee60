"""An NVML without a GPU, for the real pynvml: it is compiled, and found by a process that has its folder on
LD_LIBRARY_PATH. What it shows is written by control.py, or said by environment variables, see nvml.c.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).with_name("nvml.c")
LIBRARY: Final = "libnvidia-ml.so.1"


def compiler() -> str:
    """The C compiler. Without one the test fails where tests must run (CI is set), and is skipped elsewhere."""
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None:
        text = "no C compiler: the NVML stub cannot be built"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return found


def build(folder: Path, without: Sequence[str] = ()) -> Path:
    """Compiles it into the folder, which is returned. `without`: functions that this driver does not have."""
    script = folder / "symbols.map"
    script.write_text("{ local: " + "".join(f"{name}; " for name in (*without, "nothing")) + "};\n", encoding="ascii")
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror", f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={script}")
    unfinished = Path(tempfile.mkdtemp(dir=folder)) / LIBRARY
    command = (compiler(), *flags, "-o", str(unfinished), str(SOURCE), "-lm")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    unfinished.replace(folder / LIBRARY)
    return folder


def built(without: Sequence[str] = ()) -> Path:
    """A folder with the library, compiled once for each source and kept between runs of the tests."""
    key = hashlib.sha256(SOURCE.read_bytes() + b"\0" + " ".join(sorted(without)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"nvml_stub-{os.getuid()}-{key}"
    if not (folder / LIBRARY).exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        build(folder, without)
    return folder


def environment(folder: Path, gpus: Sequence[tuple[str, str]]) -> dict[str, str]:
    """For a process that is to see these GPUs, as (UUID, name) in the order of the PCI bus."""
    return {"LD_LIBRARY_PATH": str(folder), "NVML_STUB_GPUS": ";".join("=".join(gpu) for gpu in gpus)}
