"""Builds the compiled leaf: `wire/_NAME_py.py` with the types of `wire/_NAME_c.pxd` becomes the extension `wire._NAME_c`.

The extension is optional: an image without a C compiler gets the interpreted variant, and a gateway that runs with that says so.
`OTEL_PIPELINE_NO_EXTENSIONS=1` builds the pure variant on purpose, `OTEL_PIPELINE_REQUIRE_EXTENSIONS=1` fails where it cannot
be compiled.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import Extension, setup

WIRE = Path("otel_pipeline/wire")
LEAVES = ("scan", "codes", "splice")


def extensions() -> list[Extension]:
    if os.environ.get("OTEL_PIPELINE_NO_EXTENSIONS") == "1":
        return []
    from Cython.Build import cythonize  # only a build with extensions needs Cython

    optional = os.environ.get("OTEL_PIPELINE_REQUIRE_EXTENSIONS") != "1"
    for leaf in LEAVES:
        shutil.copyfile(WIRE / f"_{leaf}_py.py", WIRE / f"_{leaf}_c.py")
    built: list[Extension] = cythonize(
        [
            Extension(f"otel_pipeline.wire._{leaf}_c", [f"otel_pipeline/wire/_{leaf}_c.py"], extra_compile_args=["-O3"])
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


setup(ext_modules=extensions())
