"""Builds the compiled leaves: `ROOM/_NAME_py.py` with the types of `ROOM/_NAME_c.pxd` becomes the extension
`ROOM._NAME_c`.

The extension is optional: an image without a C compiler gets the interpreted variant, and a gateway that runs with
that says so. `OTEL_PIPELINE_NO_EXTENSIONS=1` builds the pure variant on purpose, `OTEL_PIPELINE_REQUIRE_EXTENSIONS=1`
fails where it cannot be compiled.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import Extension, setup

PACKAGE = Path("otel_pipeline")
COPIES = Path("build/leaf")
"""Sources under their compiled names; outside the package, where an import would find a copy instead of the
extension.
"""
LEAVES = (
    *("wire/scan", "wire/codes", "wire/splice", "wire/sieve", "wire/likeness", "wire/lineage"),
    "ledger/amounts",
)


def extensions() -> list[Extension]:
    if os.environ.get("OTEL_PIPELINE_NO_EXTENSIONS") == "1":
        return []
    from Cython.Build import cythonize  # only a build with extensions needs Cython

    optional = os.environ.get("OTEL_PIPELINE_REQUIRE_EXTENSIONS") != "1"
    built: list[Extension] = cythonize(
        [
            Extension(f"{PACKAGE}.{leaf.replace('/', '._')}_c", [str(_copy(leaf))], extra_compile_args=["-O3"])
            for leaf in LEAVES
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "annotation_typing": False,
        },
    )
    for extension in built:
        extension.optional = optional  # cythonize() loses the flag
    return built


def _copy(leaf: str) -> Path:
    """The source and its types under the extension's name, copied only if they changed, so that builds are
    incremental.
    """
    room, name = (PACKAGE / leaf).parent, Path(leaf).name
    folder = COPIES / room
    folder.mkdir(parents=True, exist_ok=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    for source, target in ((f"_{name}_py.py", f"_{name}_c.py"), (f"_{name}_c.pxd", f"_{name}_c.pxd")):
        if not (folder / target).exists() or (folder / target).read_bytes() != (room / source).read_bytes():
            shutil.copyfile(room / source, folder / target)
    return folder / f"_{name}_c.py"


setup(ext_modules=extensions())
